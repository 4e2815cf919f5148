"""What the clock makes due is made once, and equally in every process."""

import pytest
from support.key_value_store import Store

from cdm.distributed import announcements, message_board
from cdm.training import intervals
from cdm.training.intervals import COPY, SAVE


class Clock:
  def __init__(self):
    self.seconds = 1000.0

  def __call__(self):
    return self.seconds


@pytest.fixture
def store(monkeypatch):
  found = Store()
  board = message_board.Board
  monkeypatch.setattr(
    announcements.message_board, 'Board', lambda name: board(name, found)
  )
  return found


def processes(monkeypatch, clocks, minutes):
  """-> [call of `due` in process n]; process 0 has the first clock."""
  monkeypatch.setattr(announcements.collectives, 'process_count', lambda: 2)
  made = [intervals.Intervals(minutes, now=clock) for clock in clocks]

  def due_in(index):
    monkeypatch.setattr(
      announcements.collectives, 'is_first', lambda: index == 0
    )
    return made[index].due()

  return made, due_in


def test_an_action_is_due_when_its_minutes_have_passed_and_once():
  clock = Clock()
  every = intervals.Intervals({SAVE: 10.0, COPY: 0.0}, now=clock)
  assert every.due() == set()
  clock.seconds += 599
  assert every.due() == set()
  clock.seconds += 1
  assert every.due() == {SAVE}
  assert every.due() == set()
  clock.seconds += 600
  assert every.due() == {SAVE}


def test_what_was_made_meanwhile_is_not_due():
  clock = Clock()
  every = intervals.Intervals({SAVE: 10.0}, now=clock)
  clock.seconds += 500
  every.made(SAVE)
  every.made(COPY)  # has no interval
  clock.seconds += 500
  assert every.due() == set()
  clock.seconds += 100
  assert every.due() == {SAVE}


def test_without_minutes_nothing_is_announced(monkeypatch, store):
  _, due_in = processes(monkeypatch, [Clock(), Clock()], {SAVE: 0.0})
  assert due_in(0) == due_in(1) == set()
  assert store.values == {}


def test_all_processes_follow_the_clock_of_the_first(monkeypatch, store):
  """The other clock, which has jumped a day ahead, decides nothing."""
  clocks = [Clock(), Clock()]
  _, due_in = processes(monkeypatch, clocks, {SAVE: 10.0})
  clocks[1].seconds += 86400
  seen = []
  for _ in range(25):
    clocks[0].seconds += 120
    first, second = due_in(0), due_in(1)
    assert first == second
    seen.append(bool(first))
  # Announced at calls 5, 10, ..., and made one call later.
  assert [n for n, due in enumerate(seen, 1) if due] == [6, 11, 16, 21]
  assert len(store.values) <= 9  # Old announcements are removed.


def test_a_save_at_a_regular_step_takes_the_place_of_an_announced_one(
  monkeypatch, store
):
  clocks = [Clock(), Clock()]
  made, due_in = processes(monkeypatch, clocks, {SAVE: 10.0})
  clocks[0].seconds += 600
  assert due_in(0) == due_in(1) == set()
  for each in made:
    each.made(SAVE)
  assert due_in(0) == due_in(1) == set()
  assert due_in(0) == due_in(1) == set()
