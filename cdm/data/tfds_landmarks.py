"""Reads the points of faces that a TFDS data set holds beside its pictures.

celeb_a has them as `landmarks`, a feature of ten numbers: lefteye_x, lefteye_y
and so on, in the pixels of its pictures of 178 x 218.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cdm.data import landmark_file
from cdm.data.tfds import Tfds


class TfdsLandmarks:
  """The points that one feature of a TFDS data set holds.

  Attributes:
    names: K names of points, in sorted order.
    size: None, because the points lie in the pixels of the stored pictures.
  """

  size = None

  def __init__(self, source: Tfds, feature: str):
    """Looks at the first record.

    Args:
      source: the data set.
      feature: the name of the feature.

    Raises:
      ValueError: there is no such feature, or it holds no points.
    """
    self._source, self._feature = source, feature
    example = source.example(0)
    usable = [key for key in example if _names(example[key])]
    if feature not in usable:
      known = ', '.join(usable) or 'none'
      raise ValueError(
        f'landmarks is {feature!r}, and the features of this data set that '
        f'hold points, as NAME_x and NAME_y, are: {known}. Give one of them, '
        'or leave it out.'
      )
    self.names = _names(example[feature])

  def of(self, i: int) -> np.ndarray:
    """Returns the points of picture i, float32 [K, 2], by reading its record.

    Raises:
      transforms.BadImage: the record is damaged.
    """
    values = self._source.example(i)[self._feature]
    return np.array(
      [[values[f'{n}_x'], values[f'{n}_y']] for n in self.names], np.float32
    )

  def outermost(self) -> tuple[int, ...]:
    """Returns (), because it would take a walk over all records."""
    return ()


def _names(value: Any) -> tuple[str, ...]:
  """Returns the names of the points in the value of a feature, sorted."""
  if not isinstance(value, Mapping):
    return ()
  names = sorted({key[:-2] for key in value})
  columns = [key for name in names for key in (f'{name}_x', f'{name}_y')]
  return landmark_file.names_of(columns) if {*columns} == {*value} else ()
