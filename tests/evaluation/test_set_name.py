"""What a name of a set says, whichever command it was given to."""

import pytest

from cdm.evaluation import set_name
from cdm.evaluation.set_name import SetName


@pytest.mark.parametrize(
  ('what', 'expected'),
  [
    ('pictures', SetName('files', path='pictures')),
    ('a/b.npz', SetName('files', path='a/b.npz')),
    ('c.py', SetName('files', path='c.py')),
    ('c/d.py:eval', SetName('data', path='c/d.py', split='eval')),
    ('d:train', SetName('files', path='d:train')),
    ('c.py@runs/x', SetName('cascade', path='c.py', workdir='runs/x')),
    # A work directory may be called as a part of the data is.
    ('c.py@eval', SetName('cascade', path='c.py', workdir='eval')),
    ('c.py@a@eval', SetName('stage', workdir='c.py@a', split='eval')),
    ('runs/sr@train', SetName('stage', workdir='runs/sr', split='train')),
    ('a@b@eval', SetName('stage', workdir='a@b', split='eval')),
    # A method without training has the place of a work directory.
    (
      'bicubic:c/d.py@eval',
      SetName('stage', workdir='bicubic:c/d.py', split='eval'),
    ),
    ('runs/sr@test', SetName('files', path='runs/sr@test')),
    ('@eval', SetName('files', path='@eval')),
  ],
)
def test_every_name_says_one_thing(what, expected):
  assert set_name.parse(what) == expected


def test_a_mistyped_name_still_asks_for_drawn_images():
  """So that `cdm evaluate` can say which names draw, not 'no such folder'."""
  asked = ['runs/sr@eval', 'c.py@runs', 'runs/sr@evla', 'c.py:eval', 'pictures']
  found = [set_name.asks_to_draw(what) for what in asked]
  assert found == [True, True, True, False, False]
