"""Finds the largest batch that fits, and the cheapest slice by a deadline."""

from collections.abc import Callable, Iterable, Sequence

from cdm.planning import roofline


def largest(share: Callable[[int], float], *, start: int) -> int:
  """Finds the largest n that fits, accurate to 1/8 of n.

  Memory grows almost linearly with a batch, so the search follows the line
  through the last two n. It stops at 1/8 because each call of `share` takes
  minutes.

  Args:
    share: n -> share of the memory that n needs; it fits if that is at most 1.
      It must not fall when n grows.
    start: the n to begin with, at least 1.

  Returns:
    n, or 0 if not even 1 fits.
  """
  low, high = 0, None  # the largest n that fits, the smallest that does not
  points = []
  n = start
  while True:
    needed = share(n)
    points.append((n, needed))
    low, high = (n, high) if needed <= 1 else (low, n)
    step = max(1, low // 8)
    if high is not None and high - low <= step:
      return low
    if high is None:
      n = min(max(_where_full(points) or 2 * n, low + step), 64 * low)
    elif low == 0:
      n = min(max(_where_full(points) or n // 2, n // 64, 1), high - 1)
    else:
      # At least a step from both ends, so that every call narrows them.
      middle = (low + high) // 2
      guess = _where_full(points) or middle
      n = max(min(guess, high - step), low + step, low + 1)
      n = n if low < n < high else middle


def _where_full(points: Sequence[tuple[int, float]]) -> int | None:
  """Returns the n at which the line through the last two is 1, or None.

  Args:
    points: [(n, share of the memory), ...].
  """
  if len(points) < 2:
    return None
  (m, a), (n, b) = points[-2:]
  slope = (b - a) / (n - m)
  return int(n + (1 - b) / slope) if slope > 0 else None


def cheapest(
  rows: Iterable[roofline.Row], *, deadline_days: float
) -> roofline.Row | None:
  """Returns the cheapest of the plans that finish before the deadline.

  Args:
    rows: one plan per slice, as `roofline.row` returns it.
    deadline_days: the longest time that the run may take, in days.

  Returns:
    One of the rows, or None if no slice fits, finishes in time and has a price.
  """
  candidates = [
    (row['estimate']['dollars'], row)
    for row in rows
    if row['fits']
    and row['estimate']
    and row['estimate']['dollars'] is not None
    and row['estimate']['days'] <= deadline_days
  ]
  # If prices are equal, the first row wins; rows themselves are not compared.
  return min(candidates, key=lambda pair: pair[0], default=(None, None))[1]
