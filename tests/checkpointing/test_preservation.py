import pytest

from cdm.checkpointing.preservation import Preservation


def kept(steps, *, keep=2, every=None, scheduled=None, best=None):
  """The steps that stay, of checkpoints that are listed in any order."""
  policy = Preservation(keep, every, scheduled, best)
  return policy.kept(list(reversed(steps)))


STEPS = [10, 17, 20, 30, 33, 35]


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    ({}, [33, 35]),
    ({'keep': 1}, [35]),
    ({'keep': 9}, STEPS),
    ({'best': 17}, [17, 33, 35]),
    ({'best': 35}, [33, 35]),
    ({'every': 20}, [20, 33, 35]),
    ({'every': 10}, [10, 20, 30, 33, 35]),
    ({'every': 50}, [33, 35]),
    ({'scheduled': 10}, [30, 33, 35]),
    ({'scheduled': 5}, [33, 35]),
    ({'scheduled': 40}, [33, 35]),
    ({'every': 17, 'scheduled': 10, 'best': 10}, [10, 17, 30, 33, 35]),
  ],
)
def test_newest_best_and_scheduled_checkpoints_stay(given, expected):
  assert kept(STEPS, **given) == expected
