"""Are samples spread as far as they are wrong? Verification of ensembles.

k draws x_1..x_k of one posterior, with mean m and variance s^2 (k - 1 in the
denominator), and the truth y. They are calibrated if y could be one draw more:

  spread-skill ratio   sqrt((1 + 1/k) mean s^2 / mean (m - y)^2) = 1
  rank of y            uniform on 0..k                          [Hamill 2001]
  coverage             x_(i) <= y <= x_(k+1-i) in (k + 1 - 2i) / (k + 1) of all
  reliability          each draw in turn plays y: it lies as far from the mean
                       of the others as y does, however large their spread is

The factor 1 + 1/k is that of [Fortin et al. 2014]: a mean of k draws is off by
itself. The spread of few draws is itself noisy, so bins of it would not lie on
the diagonal even if all were well; leaving one out, they do, for every k.
Values that are equal (uint8 often is) share the ranks they could have.
"""

from typing import NamedTuple

import numpy as np

# Of the spread of the draws but one, in the units of the draws.
EDGES = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Tally(NamedTuple):
  """Sums over values; tallies of several images are added.

  Attributes:
    count: values.
    variance: sum of s^2.
    error: sum of (m - y)^2.
    ranks: [k + 1] values with 0, 1, ..., k draws below the truth.
    binned: [3, B] per bin of spread: pairs of a value and a draw left out, sum
      of squared distances of that draw from the mean of the others, and of
      the truth. Empty for k = 2, where one draw has no spread.
  """

  count: float
  variance: float
  error: float
  ranks: np.ndarray
  binned: np.ndarray


def tally(draws, truth):
  """Sums of one image.

  Args:
    draws: [k, ...] samples given the same input, k >= 2.
    truth: [...] of the same shape.

  Returns:
    Tally.

  Raises:
    ValueError: fewer than two draws, or another shape.
  """
  draws, truth = np.asarray(draws, np.float64), np.asarray(truth, np.float64)
  if len(draws) < 2 or draws.shape[1:] != truth.shape:
    raise ValueError(
      f'Spread needs two draws or more of the shape of the truth; given were '
      f'{draws.shape} and {truth.shape}.'
    )
  mean = draws.mean(axis=0)
  return Tally(
    float(truth.size),
    float(draws.var(axis=0, ddof=1).sum()),
    float(((mean - truth) ** 2).sum()),
    _ranks(draws, truth),
    _binned(draws, truth),
  )


def _ranks(draws, truth):
  below = (draws < truth).sum(axis=0).ravel()
  equal = (draws == truth).sum(axis=0).ravel()
  k = len(draws)
  share = 1.0 / (equal + 1)
  starts = np.bincount(below, share, k + 2)
  ends = np.bincount(below + equal + 1, share, k + 2)
  return np.cumsum(starts - ends)[: k + 1]


def _binned(draws, truth):
  k = len(draws)
  found = np.zeros((3, len(EDGES) + 1))
  if k < 3:
    return found
  for j in range(k):
    others = np.delete(draws, j, axis=0)
    center = others.mean(axis=0)
    spread = others.std(axis=0, ddof=1).ravel()
    place = np.searchsorted(EDGES, spread, side='right')
    apart = (draws[j] - center).ravel() ** 2, (truth - center).ravel() ** 2
    for row, weights in enumerate((None, *apart)):
      found[row] += np.bincount(place, weights, len(EDGES) + 1)
  return found


def add(tallies):
  """-> Tally of all values. Raises ValueError for other numbers of draws."""
  tallies = list(tallies)
  if len({len(t.ranks) for t in tallies}) != 1:
    raise ValueError('Tallies of one number of draws are added, and not none.')
  parts = (np.sum(part, axis=0) for part in zip(*tallies, strict=True))
  return Tally(*parts)


def spread_skill(found):
  """-> 1 if calibrated, below it overconfident; NaN without any error."""
  return ratio(len(found.ranks) - 1, found.variance, found.error)


def ratio(k, variance, error):
  """The ratio of the module's first line, from two sums or means."""
  return float(np.sqrt((1 + 1 / k) * variance / error)) if error else np.nan


def coverage(found):
  """-> [(nominal, observed)] of the central intervals, narrowest first."""
  k = len(found.ranks) - 1
  shares = found.ranks / found.count
  return [
    ((k + 1 - 2 * i) / (k + 1), float(shares[i : k + 1 - i].sum()))
    for i in range(k // 2, 0, -1)
  ]


def coverage_error(found):
  """Mean of |observed - nominal| over the central intervals, 0 at best."""
  return float(np.mean([abs(seen - said) for said, seen in coverage(found)]))


def coverage_bias(found):
  """Mean of observed - nominal: below 0 the truth is missed too often."""
  return float(np.mean([seen - said for said, seen in coverage(found)]))


def reliability(found):
  """Error that the spread foretells, and the one there is, bin by bin.

  Returns:
    [(predicted, actual, share of the values), ...], both root mean squares;
    bins that hold nothing are left out.
  """
  counts, apart, wrong = found.binned
  return [
    (float(np.sqrt(a / n)), float(np.sqrt(w / n)), float(n / counts.sum()))
    for n, a, w in zip(counts, apart, wrong, strict=True)
    if n
  ]
