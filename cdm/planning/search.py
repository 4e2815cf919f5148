"""Finds the largest batch that fits, and the cheapest slice by a deadline."""

from collections.abc import Callable, Iterable

from cdm.planning import roofline


def largest(fits: Callable[[int], bool], *, start: int) -> int:
  """Finds the largest n for which fits(n) is true, accurate to 1/8 of n.

  The search doubles n until n does not fit (or halves n until it does), then
  bisects. It stops at 1/8 because each call of `fits` takes minutes.

  Args:
    fits: n -> bool, true up to some n and false for all larger ones.
    start: the n to begin with, at least 1.

  Returns:
    n, or 0 if not even 1 fits.
  """
  if fits(start):
    low, high = start, 2 * start
    while fits(high):
      low, high = high, 2 * high
  else:
    low, high = start // 2, start
    while low and not fits(low):
      low, high = low // 2, low
  while high - low > max(1, low // 8):
    middle = (low + high) // 2
    if fits(middle):
      low = middle
    else:
      high = middle
  return low


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
