import pytest

from cdm.training import goodput


class Clock:
  now = 1000.0

  def __call__(self):
    return self.now


def test_goodput_is_the_share_of_the_time_in_steps_over_all_restarts():
  clock = Clock()
  run = goodput.Goodput(clock=clock)
  assert run.share() == run.evaluation_share() == 0.0
  clock.now += 100
  run.add(30)
  run.add(20)
  run.add_evaluation(5)
  run.add_evaluation(5)
  assert (run.share(), run.evaluation_share()) == (0.5, 0.1)
  clock.now += 100  # lost between two starts
  again = goodput.Goodput(run.to_json(), began=1200.0, clock=clock)
  assert (again.share(), again.evaluation_share()) == (0.25, 0.05)
  again.add(50)
  assert again.share() == 0.5
  assert again.to_json() == {
    'began': 1000.0,
    'seconds': 100.0,
    'evaluation_seconds': 10.0,
  }


def test_a_run_begins_with_its_process_where_that_is_known():
  clock = Clock()
  run = goodput.Goodput(began=990.0, clock=clock)
  run.add(5)
  assert run.share() == 0.5
  run = goodput.Goodput({'seconds': 5.0}, began=990.0, clock=clock)
  assert run.share() == 0.5 and run.evaluation_share() == 0.0


@pytest.mark.parametrize('step_back', [0, 50])
def test_a_clock_that_is_set_back_makes_no_share_above_one(step_back):
  clock = Clock()
  run = goodput.Goodput(clock=clock)
  clock.now -= step_back
  run.add(1.0)
  assert run.share() == 1.0
