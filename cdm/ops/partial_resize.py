"""Resizes a part of a picture as `resize` resizes the whole.

A picture that is too large for memory is resized by bands of rows or by
rectangles. Only the pixels within the filter of a result are read, and their
weights are those of the whole picture, so that the parts make the same result
to the rounding of float32.
"""

import functools
from typing import NamedTuple

import numpy as np

from cdm.ops import resize

H_AXIS, W_AXIS = -3, -2  # of [..., H, W, C]


class Taps(NamedTuple):
  """Where a part of an axis comes from.

  Attributes:
    first: the first pixel that is read.
    last: the last one, plus one.
    index: int [n, k], the pixels that each of n new ones is a sum of.
    weight: float32 [n, k], what each counts.
  """

  first: int
  last: int
  index: np.ndarray
  weight: np.ndarray


@functools.lru_cache(maxsize=64)
def taps(
  length: int, new_length: int, first: int, last: int, method: str
) -> Taps:
  """Returns where the new pixels [first, last) of an axis come from.

  Args:
    length, new_length: pixels of the whole axis before and after.
    first, last: the part of the new axis, within it.
    method: see `resize.resize`; a filter is widened when it shrinks.

  Raises:
    ValueError: the method is unknown.
  """
  if method not in resize.METHODS:
    raise ValueError(
      f'The resize method is {method!r}; known are {list(resize.METHODS)}.'
    )
  if length == new_length:  # every method is the identity
    index = np.arange(first, last)[:, None]
    return Taps(first, last, index, np.ones(index.shape, np.float32))
  scale = length / new_length
  centers = (np.arange(first, last) + 0.5) * scale  # [n]
  wide = max(scale, 1.0)
  reach = {'area': scale / 2 + 1, 'nearest': 1.0}.get(method)
  if reach is None:
    reach = wide * (3 if method == 'lanczos3' else 2)
  start = np.floor(centers - reach).astype(int)
  index = start[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)  # [n, k]
  if method == 'area':
    low = np.maximum(index, (centers - scale / 2)[:, None])
    high = np.minimum(index + 1, (centers + scale / 2)[:, None])
    weight = np.maximum(high - low, 0.0)
  elif method == 'nearest':
    weight = (np.floor(centers)[:, None] == index).astype(float)
  else:
    distance = np.abs(index + 0.5 - centers[:, None]) / wide
    weight = resize.KERNELS[method](distance)
  weight = np.where((index >= 0) & (index < length), weight, 0.0)
  weight /= weight.sum(axis=1, keepdims=True)
  used = np.flatnonzero(weight.any(axis=0))
  index, weight = index[:, used], weight[:, used]
  counted = index[weight != 0]
  low, high = int(counted.min()), int(counted.max()) + 1
  index = np.clip(index, low, high - 1)
  return Taps(low, high, index, weight.astype(np.float32))


def along(x: np.ndarray, taps: Taps, axis: int) -> np.ndarray:
  """Resizes along one axis.

  Args:
    x: float32 [..., H, W, C], of which the axis holds the pixels from
      `taps.first` to `taps.last`.
    taps: what `taps` returns.
    axis: `H_AXIS` or `W_AXIS`.

  Returns:
    float32, the axis n long.
  """
  assert x.shape[axis] == taps.last - taps.first
  shape = [1] * x.ndim
  shape[axis] = len(taps.index)
  total: np.ndarray | None = None
  for k in range(taps.index.shape[1]):
    part = np.take(x, taps.index[:, k] - taps.first, axis=axis)
    part *= taps.weight[:, k].reshape(shape)
    total = part if total is None else np.add(total, part, out=total)
  assert total is not None
  return total


def rectangle(x: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
  """Resizes a rectangle along both axes, as `resize.resize` does.

  Args:
    x: float32 [..., H, W, C], the pixels that `rows` and `columns` read.
    rows, columns: what `taps` returns.

  Returns:
    float32 [..., n, m, C].
  """
  return along(along(x, columns, W_AXIS), rows, H_AXIS)
