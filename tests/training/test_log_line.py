"""A log line says how much of the data was seen, and how long a start took."""

from cdm.reporting import metric_writer, process_age
from cdm.training import goodput, log_line


def make(facts, rates_seen):
  def utilization(rates):
    rates_seen.append(rates)
    return {'mfu': 0.5}

  return log_line.LogLine(
    batch_size=32, num_images=1000, utilization=utilization, facts=facts
  )


def test_images_and_epochs_follow_from_the_step_alone():
  """So a run that was started again logs what an undisturbed one does."""
  seen = []
  line = make({}, seen)
  assert line.gauges(100, {'goodput': 1.0}) == {
    'images_seen': 3200,
    'epoch': 3.2,
    'mfu': 0.5,
  }
  assert make({}, []).gauges(100, {}) == line.gauges(100, {})
  assert seen[0] == {'goodput': 1.0}


def test_the_first_line_alone_says_how_long_the_start_took(monkeypatch):
  facts = {'what': 'train'}
  line = make(facts, [])
  monkeypatch.setattr(process_age, 'seconds', lambda: 12.34567)
  line.first_step()
  assert line.gauges(1, {})['start_seconds'] == 12.346
  assert facts == {'what': 'train', 'start_seconds': 12.346}
  assert 'start_seconds' not in line.gauges(2, {})
  # It depends on time and machine.
  assert 'start_seconds' in metric_writer.CIRCUMSTANCES


def test_the_start_of_the_process_is_lost_time_in_goodput():
  now = [1000.0]
  new = goodput.Goodput(began=940.0, clock=lambda: now[0])
  new.add(20.0)
  assert new.share() == 20 / 60
  now[0] = 1040.0
  again = goodput.Goodput(new.to_json(), began=1030.0, clock=lambda: now[0])
  assert again.share() == 20 / 100
