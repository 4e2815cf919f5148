"""Who sees what: balanced over persons, and within each of them."""

import collections

import pytest
from support import studies

from cdm.evaluation.human import trial_lists

DESIGNS = [
  dict(task='2afc', scenes=20, trials=10, methods=('a',)),
  dict(task='2afc', scenes=21, trials=9, methods=('a', 'b')),
  dict(task='preference', scenes=13, trials=7, methods=('a', 'b', 'c')),
  dict(task='rating', scenes=10, trials=10, methods=('a', 'b', 'c', 'd')),
]


@pytest.mark.parametrize('design', DESIGNS)
def test_every_pair_is_seen_equally_often(design):
  made = studies.study(**design)
  seen = collections.Counter()
  for number in range(trial_lists.full_round(made)):
    trials = trial_lists.trial_list(made, number)
    judged = [t for t in trials if t.part == 'judged']
    assert len(judged) == made['trials']
    assert len({t.item for t in judged}) == len(judged)  # no scene twice
    seen.update((t.item, t.condition) for t in judged)
    often = collections.Counter(item for item, _ in seen.elements())
    often = [often[item] for item in range(len(made['items']))]
    assert max(often) - min(often) <= 1
    if len(trials[0].shown) == 2:
      first = [trial_lists.conditions(made)[t.condition][0] for t in judged]
      left = sum(t.shown[0] == f for t, f in zip(judged, first, strict=True))
      assert abs(2 * left - len(judged)) <= 1
  every = len(made['items']) * len(trial_lists.conditions(made))
  assert len(seen) == every and len(set(seen.values())) == 1


def test_a_list_follows_from_the_seed_and_its_number():
  made = studies.study()
  again = studies.study()
  assert trial_lists.trial_list(made, 3) == trial_lists.trial_list(again, 3)
  other = studies.study(seed=1)
  orders = [
    trial_lists.trial_list(made, 3),
    trial_lists.trial_list(made, 5),  # the same scenes, 2 lists later
    trial_lists.trial_list(other, 3),
  ]
  assert orders[0] != orders[1] != orders[2] != orders[0]


def test_practice_comes_first_and_catch_trials_lie_between():
  made = studies.study(trials=20)
  places = set()
  for number in range(20):
    trials = trial_lists.trial_list(made, number)
    assert [t.part for t in trials].index('practice') == 0
    assert [t.part for t in trials].count('practice') == 1
    places |= {i for i, t in enumerate(trials) if t.part == 'catch'}
  assert places == set(range(1, 26))
