"""What --methods stands for, or one sentence."""

import pytest

from cdm.evaluation.comparison import named_methods


@pytest.fixture
def runs(tmp_path):
  (tmp_path / 'sr3' / 'checkpoints').mkdir(parents=True)
  (tmp_path / 'empty').mkdir()
  return tmp_path


def test_names_keep_their_order_and_find_their_folders(runs):
  found = named_methods.parse(
    f'bicubic,sr3, nearest-neighbour,theirs={runs / "empty"},b={runs / "sr3"}',
    runs,
  )
  assert [(m.name, m.kind, m.path) for m in found] == [
    ('bicubic', 'bicubic', None),
    ('sr3', 'stage', runs / 'sr3'),
    ('nearest_neighbour', 'nearest_neighbour', None),
    ('theirs', 'files', runs / 'empty'),
    ('b', 'stage', runs / 'sr3'),
  ]


@pytest.mark.parametrize(
  'text, has_runs, words',
  [
    ('sr3', False, 'sr3, which has to be trained: give .* --workdir=RUNS'),
    ('nothing', True, 'nothing is not there. Train it first, or leave it out'),
    ('empty', True, 'empty has no checkpoint. Train it first'),
    ('x=/no/where', True, '/no/where is not there'),
    ('sr3,sr3', True, 'has sr3 twice; give one of them another name'),
    ('bicubic,,sr3', True, "has ''; names of letters"),
    ('../sr3', True, "has '../sr3'; names of letters"),
  ],
)
def test_what_stands_for_nothing_is_refused(runs, text, has_runs, words):
  with pytest.raises(ValueError, match=words):
    named_methods.parse(text, runs if has_runs else None)
