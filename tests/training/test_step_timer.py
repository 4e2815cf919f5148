"""Where the time between two log lines goes."""

from support.terminals import Clock

from cdm.training import step_timer


def test_the_timer_tells_training_from_waiting_and_from_the_rest():
  clock = Clock()
  timer = step_timer.Timer(clock)
  assert timer.rates(3, batch_size=8) == {}
  timer.restart(10)
  with timer.waiting():
    clock.now += 2
  clock.now += 6
  with timer.away():
    clock.now += 100
  assert timer.rates(14, batch_size=8) == {
    'images_per_second': 4.0,
    'step_seconds': 2.0,
    'data_wait_fraction': 0.25,
  }
  timer.restart(14)
  assert timer.rates(14, batch_size=8) == {}
