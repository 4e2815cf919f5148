"""Measures the calibration of samples: spread-skill, ranks, coverage.

k draws x_1..x_k of one posterior, with mean m and variance s^2 (k - 1 in the
denominator), and the truth y. They are calibrated if y could be one more draw:

  spread-skill ratio   sqrt((1 + 1/k) mean s^2 / mean (m - y)^2) = 1
  rank of y            uniform on 0..k                          [Hamill 2001]
  coverage             x_(i) <= y <= x_(k+1-i) in (k + 1 - 2i) / (k + 1) of all
  reliability          each draw in turn takes the place of y: it lies as far
                       from the mean of the other draws as y does, however
                       large the spread of the other draws is

The factor 1 + 1/k is that of [Fortin et al. 2014]: a mean of k draws has a
sampling error of its own. The spread of few draws is noisy too, so in bins of
the spread, the errors of y would not equal the spread even for calibrated
draws. They do equal the errors of a draw that is left out, for every k.
Draws that equal the truth (as uint8 values often do) share their count among
the ranks that y could have.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# Edges of the bins of `reliability`: the spread of all draws but one, in the
# units of the draws.
EDGES = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Tally(NamedTuple):
  """Sums over the values of one or several images, see `add`.

  Attributes:
    count: number of values.
    variance: sum of s^2.
    error: sum of (m - y)^2.
    ranks: [k + 1], number of values with 0, 1, ..., k draws below the truth.
    binned: [3, B], per bin of the spread of k - 1 draws: the number of pairs of
      a value and a draw that is left out; the sum of the squared distances of
      that draw from the mean of the others; the same of the truth. All zero for
      k = 2, where the one other draw has no spread.
  """

  count: float
  variance: float
  error: float
  ranks: np.ndarray
  binned: np.ndarray


def tally(draws: np.ndarray, truth: np.ndarray) -> Tally:
  """Computes the sums of one image.

  Args:
    draws: [k, ...], samples of the same input, k >= 2.
    truth: [...], the original.

  Returns:
    Tally.

  Raises:
    ValueError: fewer than two draws, or shapes that do not fit.
  """
  draws, truth = np.asarray(draws, np.float64), np.asarray(truth, np.float64)
  if len(draws) < 2 or draws.shape[1:] != truth.shape:
    raise ValueError(
      f'Spread needs two draws or more of the shape of the truth; the '
      f'shapes are {draws.shape} and {truth.shape}.'
    )
  mean = draws.mean(axis=0)
  return Tally(
    float(truth.size),
    float(draws.var(axis=0, ddof=1).sum()),
    float(((mean - truth) ** 2).sum()),
    _ranks(draws, truth),
    _binned(draws, truth),
  )


def _ranks(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Returns float64 [k + 1], the rank histogram; ties share their count."""
  below = (draws < truth).sum(axis=0).ravel()
  equal = (draws == truth).sum(axis=0).ravel()
  k = len(draws)
  share = 1.0 / (equal + 1)
  starts = np.bincount(below, share, k + 2)
  ends = np.bincount(below + equal + 1, share, k + 2)
  return np.cumsum(starts - ends)[: k + 1]


def _binned(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Returns `Tally.binned` of one image."""
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


def add(tallies: Iterable[Tally]) -> Tally:
  """Adds the tallies of several images.

  Raises:
    ValueError: there are no tallies, or they have different numbers of draws.
  """
  tallies = list(tallies)
  if len({len(t.ranks) for t in tallies}) != 1:
    raise ValueError(
      'Tallies can be added if there is at least one, and if all have the same '
      'number of draws.'
    )
  parts = (np.sum(part, axis=0) for part in zip(*tallies, strict=True))
  return Tally(*parts)


def spread_skill(found: Tally) -> float:
  """Returns the spread-skill ratio.

  1 is calibrated, below 1 is overconfident; NaN if there is no error at all.
  """
  return ratio(len(found.ranks) - 1, found.variance, found.error)


def ratio(k: int, variance: float, error: float) -> float:
  """Returns the spread-skill ratio of two sums, or of two means.

  Args:
    k: number of draws.
    variance: sum or mean of s^2.
    error: sum or mean of (m - y)^2, over the same values.
  """
  return float(np.sqrt((1 + 1 / k) * variance / error)) if error else np.nan


def coverage(found: Tally) -> list[tuple[float, float]]:
  """Returns [(nominal, observed)] of the central intervals, narrowest first."""
  k = len(found.ranks) - 1
  shares = found.ranks / found.count
  return [
    ((k + 1 - 2 * i) / (k + 1), float(shares[i : k + 1 - i].sum()))
    for i in range(k // 2, 0, -1)
  ]


def coverage_error(found: Tally) -> float:
  """Returns the mean of |observed - nominal| over the central intervals."""
  return float(
    np.mean([abs(observed - nominal) for nominal, observed in coverage(found)])
  )


def coverage_bias(found: Tally) -> float:
  """Returns the mean of observed - nominal over the central intervals.

  Below 0 the intervals miss the truth too often.
  """
  return float(
    np.mean([observed - nominal for nominal, observed in coverage(found)])
  )


def reliability(found: Tally) -> list[tuple[float, float, float]]:
  """Returns the error that the spread predicts and the actual error, by bins.

  Returns:
    [(predicted, actual, share of the values), ...]; the errors are root mean
    squares. Empty bins are left out.
  """
  counts, apart, wrong = found.binned
  return [
    (float(np.sqrt(a / n)), float(np.sqrt(w / n)), float(n / counts.sum()))
    for n, a, w in zip(counts, apart, wrong, strict=True)
    if n
  ]
