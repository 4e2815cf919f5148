"""When a failed save is made again, and when it is given up."""

import pytest

from cdm.checkpointing import save_patience


class Clock:
  """Seconds that the test sets."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


def test_the_first_retry_is_due_at_once_and_the_next_after_growing_pauses():
  clock = Clock()
  patience = save_patience.Patience(clock)
  assert not patience.is_due()
  pauses = []
  for _ in range(8):
    pauses.append(patience.failed().pause)
    clock.now += max(0, pauses[-1] - 0.5)
    assert patience.is_due() == (pauses[-1] == 0)
    clock.now += 0.5
    assert patience.is_due()
  assert pauses == [0, 15, 30, 60, 120, 240, 300, 300]


def test_a_complete_save_ends_the_failure():
  clock = Clock()
  patience = save_patience.Patience(clock)
  patience.failed()
  clock.now += 50
  patience.succeeded()
  assert not patience.is_due()
  clock.now += 7
  found = patience.failed()
  assert (found.failing, found.unsaved, found.pause) == (0, 7, 0)


@pytest.mark.parametrize(
  ('unsaved', 'failing', 'seconds', 'over', 'over_at_the_end'),
  [
    (100, 0, 0, True, True),  # no failure is allowed
    (100, 0, 60, False, False),
    (100, 59, 60, False, True),  # 41 s of work are at stake
    (100, 40, 60, False, False),
    (500, 59, 60, False, False),
    (500, 60, 60, True, True),
    (5, 4, 60, False, False),  # one second of work is worth five
    (6, 5, 60, False, True),
  ],
)
def test_at_the_end_no_longer_is_waited_than_the_work_took(
  unsaved, failing, seconds, over, over_at_the_end
):
  found = save_patience.Failing(failing, unsaved, 0.0)
  assert found.is_over(seconds) == over
  assert found.is_over_at_the_end(seconds) == over_at_the_end


def test_the_last_pauses_are_neither_nothing_nor_long():
  pauses = [
    save_patience.Failing(pause=p).last_pause() for p in (0.0, 15.0, 300.0)
  ]
  assert pauses == [1.0, 15.0, save_patience.LAST_PAUSE_S]
