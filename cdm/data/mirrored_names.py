"""Finds which points or parts of a face change places in a mirrored picture.

The left eye of a mirrored picture is where its right eye was. Their names tell:
lefteye and righteye, left_eye and right_eye, l_brow and r_brow.
"""

from collections.abc import Sequence

_SIDES = ('left', 'right')
_PREFIXES = ('l_', 'r_')


def order(names: Sequence[str]) -> tuple[int, ...]:
  """Returns for each name the index of the one whose place it takes.

  That is its own index for what has no other side, such as a nose. l_lip is the
  lower lip of CelebAMask-HQ, and stays what it is because there is no r_lip.

  Args:
    names: the names of points or parts.
  """
  places = {name.lower(): n for n, name in enumerate(names)}
  return tuple(
    places.get(_other_side(name.lower()), n) for n, name in enumerate(names)
  )


def is_same(names: Sequence[str]) -> bool:
  """Returns whether everything stays what it is in a mirrored picture."""
  return order(names) == tuple(range(len(names)))


def _other_side(name: str) -> str:
  """Returns the name with its side exchanged; the same if it has none."""
  for one, other in (_SIDES, _SIDES[::-1]):
    if one in name:
      return name.replace(one, other, 1)
  for one, other in (_PREFIXES, _PREFIXES[::-1]):
    if name.startswith(one):
      return other + name.removeprefix(one)
  return name
