"""Filters rows of a PNG file before they are compressed (PNG, section 9)."""

import numpy as np

_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4
# Which filter is best is estimated on every so many pixels.
_STRIDE = 8


def filtered(rows: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
  """Returns rows with their filters, uint8 [N, 1 + bytes].

  The filter of a row is the one whose differences have the least sum, as the
  specification suggests (section 12.7).

  Args:
    rows: uint8 [N, bytes], samples of more than 8 bits in big endian.
    above: uint8 [bytes], the row before; zeros above the first.
    step: bytes of a pixel.
  """
  count, width = rows.shape
  before = np.concatenate([above[None], rows[:-1]])
  left = _shifted(rows, step)
  corner = _shifted(before, step)
  some = _sample(width, step)
  parts = [a[:, some] for a in (rows, left, before, corner)]
  costs = np.stack([_cost(_apply(kind, *parts)) for kind in (1, 2, 3, 4)])
  chosen = costs.argmin(axis=0) + 1
  result = np.empty((count, 1 + width), np.uint8)
  result[:, 0] = chosen
  for kind in (1, 2, 3, 4):
    mine = chosen == kind
    if mine.any():
      parts = (a[mine] for a in (rows, left, before, corner))
      result[mine, 1:] = _apply(kind, *parts)
  return result


def _shifted(rows, step):
  """Returns the bytes one pixel to the left, 0 before the first."""
  shifted = np.zeros_like(rows)
  shifted[:, step:] = rows[:, :-step]
  return shifted


def _sample(width, step):
  """Returns indices of the bytes of every so many pixels."""
  first = np.arange(0, width, step * _STRIDE)
  return (first[:, None] + np.arange(step)).ravel()


def _cost(differences):
  """Returns the sum of the differences as signed numbers, of each row."""
  size = np.minimum(differences, np.negative(differences))
  return size.sum(axis=1, dtype=np.int64)


def _apply(kind, rows, left, above, corner):
  if kind == _SUB:
    return rows - left
  if kind == _UP:
    return rows - above
  if kind == _AVERAGE:
    # Half of the sum of two bytes, without a carry.
    return rows - ((left & above) + ((left ^ above) >> 1))
  return rows - _paeth(left, above, corner)


def _paeth(left, above, corner):
  a, b, c = (part.astype(np.int16) for part in (left, above, corner))
  to_a, to_b = np.abs(b - c), np.abs(a - c)
  to_c = np.abs(a + b - 2 * c)
  nearest = np.where(to_b <= to_c, above, corner)
  return np.where((to_a <= to_b) & (to_a <= to_c), left, nearest)
