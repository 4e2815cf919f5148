"""Fills pixels without a value for a network, and finds them again.

A pixel gets the value of the nearest one that has a value, up to `REACH` pixels
away, and the mean of the range beyond. So what a band of rows is filled with
depends on the rows within `REACH` of it, and not on how a picture is cut.
"""

import numpy as np

REACH = 32


def fill(values: np.ndarray, missing: np.ndarray, rest: float) -> np.ndarray:
  """Returns a picture whose missing values are filled.

  Args:
    values: [h, w].
    missing: bool [h, w].
    rest: the value of what has none within `REACH`.

  Returns:
    [h, w], the same array if nothing is missing.
  """
  if not missing.any():
    return values
  if missing.all():
    return np.full_like(values, rest)
  # Imported here, because most arrays lack no value.
  from scipy import ndimage

  distances, nearest = ndimage.distance_transform_edt(
    missing, return_indices=True
  )
  return np.where(distances <= REACH, values[tuple(nearest)], rest)


def nearest_rows(first: int, last: int, new: int, old: int) -> np.ndarray:
  """Returns which of the `old` rows those from `first` on come from.

  Args:
    first, last: the rows [first, last) of the result.
    new, old: rows of the result and of what it is made of.

  Returns:
    int [last - first], the row that each centre lies in.
  """
  rows = (np.arange(first, last) + 0.5) * old / new
  return np.minimum(rows.astype(int), old - 1)
