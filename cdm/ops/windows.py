"""Covers an axis with windows that overlap, with weights that sum to one.

Windows of one size stand side by side; the last one ends where the axis ends.
What they hold is joined with weights that fall smoothly to zero within an
overlap, and are zero already along a margin in which a window is not to count.
"""

from collections.abc import Sequence

import numpy as np

# (first, last + 1) pixel along an axis.
Interval = tuple[int, int]


def starts(length: int, size: int, overlap: int) -> list[int]:
  """Returns the first pixel of each window along an axis, in increasing order.

  Args:
    length: of the axis, at least `size`.
    size: of a window.
    overlap: pixels that two neighbours share, less than `size`; the last two
      may share more.
  """
  assert 0 <= overlap < size <= length, (length, size, overlap)
  step = size - overlap
  count = 1 + -(-(length - size) // step)
  return [min(i * step, length - size) for i in range(count)]


def weights(
  intervals: Sequence[Interval], *, margin: int = 0
) -> list[np.ndarray]:
  """Returns what each pixel of each window counts.

  Args:
    intervals: the windows, in increasing order, without gaps.
    margin: pixels along a border inside the axis that do not count; neighbours
      share at least twice as many.

  Returns:
    float32 [size of the window], for each window. At every pixel of the axis
    the weights of all windows sum to one.
  """
  raw = []
  for i, (first, last) in enumerate(intervals):
    own = np.ones(last - first)
    if i:
      own *= _rise(intervals[i - 1][1] - first, last - first, margin)
    if i + 1 < len(intervals):
      own *= _rise(last - intervals[i + 1][0], last - first, margin)[::-1]
    raw.append(own)
  origin = intervals[0][0]
  total = np.zeros(intervals[-1][1] - origin)
  for (first, last), own in zip(intervals, raw, strict=True):
    total[first - origin : last - origin] += own
  return [
    (own / total[first - origin : last - origin]).astype(np.float32)
    for (first, last), own in zip(intervals, raw, strict=True)
  ]


def grouped(
  intervals: Sequence[Interval],
  groups: Sequence[tuple[int, int]],
  *,
  margin: int = 0,
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
  """Splits the weights of windows into those of groups, and those in a group.

  The weight of a window is the product of the two. Within a group the weights
  sum to one, or are zero where the whole group does not count.

  Args:
    intervals, margin: see `weights`.
    groups: the groups, each a window and the last one plus one; every window
      is in one of them.

  Returns:
    (float32 [pixels of the group] for each group, for each group float32 [size
    of the window] for each of its windows).
  """
  whole = weights(intervals, margin=margin)
  outer, inner = [], []
  for first, last in groups:
    own = intervals[first:last]
    origin = own[0][0]
    total = np.zeros(own[-1][1] - origin, np.float32)
    for (start, end), weight in zip(own, whole[first:last], strict=True):
      total[start - origin : end - origin] += weight
    share = np.where(total > 0, 1 / np.where(total > 0, total, 1), 0)
    outer.append(total)
    inner.append(
      [
        weight * share[start - origin : end - origin]
        for (start, end), weight in zip(own, whole[first:last], strict=True)
      ]
    )
  return outer, inner


def _rise(overlap, size, margin):
  """Returns [size] weights that rise from 0 to 1 within an overlap.

  Together with their mirror image they sum to one.
  """
  assert overlap >= 2 * margin, (overlap, margin)
  center = np.arange(size) + 0.5 - margin
  width = overlap - 2 * margin
  t = np.clip(center / width, 0, 1) if width else (center > 0).astype(float)
  return t * t * (3 - 2 * t)


def mirrored(indices: np.ndarray, length: int) -> np.ndarray:
  """Returns the pixels that stand for pixels beyond the end of an axis.

  The picture is reflected at its borders as often as needed, and the pixel at
  the border is repeated: ... c b a | a b c | c b a ...

  Args:
    indices: int [n], any.
    length: of the axis, at least 1.

  Returns:
    int [n], from 0 to length - 1.
  """
  turn = np.mod(indices, 2 * length)
  return np.where(turn < length, turn, 2 * length - 1 - turn)
