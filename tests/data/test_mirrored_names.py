"""What changes places in a mirrored picture."""

import pytest

from cdm.data import mirrored_names, parsing_folder


def pairs(names):
  """-> {name: the name whose place it takes} of those that move."""
  order = mirrored_names.order(names)
  return {names[n]: names[m] for n, m in enumerate(order) if n != m}


@pytest.mark.parametrize(
  'names',
  [
    ('lefteye', 'nose', 'righteye'),
    ('left_eye', 'nose', 'right_eye'),
    ('eyeLeft', 'nose', 'eyeRight'),
    ('l_eye', 'l_lip', 'r_eye'),
  ],
)
def test_left_and_right_change_places_and_the_middle_stays(names):
  one, middle, other = names
  assert pairs(names) == {one: other, other: one}
  assert not mirrored_names.is_same(names)
  assert mirrored_names.is_same((one, middle))  # the other side is not there


def test_the_parts_of_celebamask_hq_have_three_pairs():
  """The earring, the necklace and the lower lip only look as if they had."""
  found = pairs(parsing_folder.PARTS)
  assert found == {
    f'{side}_{part}': f'{other}_{part}'
    for side, other in (('l', 'r'), ('r', 'l'))
    for part in ('eye', 'brow', 'ear')
  }
