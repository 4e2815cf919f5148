"""Finds the largest batch that fits, and the cheapest slice in time."""


def largest(fits, *, start):
  """Finds the largest n for which fits(n), to an eighth of it.

  Doubles until it does not fit (or halves until it does), then bisects: a
  measurement takes minutes.

  Args:
    fits: n -> bool, true up to some n and false from there on.
    start: n to begin with, at least 1.

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


def cheapest(rows, *, deadline_days):
  """-> the row that costs least of those done in time, or None.

  Args:
    rows: what `roofline.row` returned.
    deadline_days: by when.
  """
  candidates = [
    row
    for row in rows
    if row['fits']
    and row['estimate']
    and row['estimate']['dollars'] is not None
    and row['estimate']['days'] <= deadline_days
  ]
  return min(
    candidates, key=lambda row: row['estimate']['dollars'], default=None
  )
