"""The collector looks seldom, and still finds what only it can free."""

import gc
import weakref

import pytest

from cdm.cli import garbage_collection, main

PYTHONS = (700, 10, 10)


@pytest.fixture(autouse=True)
def kept():
  """The thresholds of the tests come back."""
  before = gc.get_threshold()
  yield
  gc.set_threshold(*before)


def looks(number):
  """-> how often the collector ran while `number` lists were made."""
  seen = []

  def look(phase, _):
    seen.append(phase)

  gc.collect()
  gc.callbacks.append(look)
  made = [[] for _ in range(number)]
  gc.callbacks.remove(look)
  assert len(made) == number
  return seen.count('start')


def test_every_command_begins_with_it(capsys):
  gc.set_threshold(*PYTHONS)
  before = looks(70_000)
  with pytest.raises(SystemExit):
    main.main(['--version'])
  after = looks(70_000)
  assert before >= 90 and 1 <= after <= 4, (before, after)
  assert gc.get_threshold()[0] == garbage_collection.YOUNG
  assert capsys.readouterr().out


class Link:
  pass


def test_circles_are_freed_without_being_asked_for():
  gc.set_threshold(*PYTHONS)
  garbage_collection.look_less_often()
  alive = weakref.WeakSet()
  most = 0
  for _ in range(100_000):
    link = Link()
    link.itself = link
    alive.add(link)
    most = max(most, len(alive))
  assert most <= 2 * garbage_collection.YOUNG


@pytest.mark.parametrize('young', [0, 10**6])
def test_a_program_that_chose_fewer_looks_keeps_them(young):
  gc.set_threshold(young, 7, 5)
  chosen = gc.get_threshold()
  garbage_collection.look_less_often()
  assert gc.get_threshold() == chosen and chosen[0] == young
