"""Computes confidence intervals by the bootstrap, for few images."""

from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 1 << 20  # number of values resampled at once, which bounds memory


def interval(
  values: np.ndarray | Sequence[float],
  *,
  level: float = 0.95,
  resamples: int = 2000,
  seed: int = 0,
  statistic: Callable[[np.ndarray], float] = np.mean,
) -> tuple[float, float]:
  """Computes the percentile bootstrap interval of a statistic.

  Args:
    values: [N, ...], independent rows, one per image (or pair).
    level: share of the resamples that lie inside the interval.
    resamples: number of resamples, drawn with replacement.
    seed: seed of the draw.
    statistic: [N, ...] -> number.

  Returns:
    (low, high), floats.

  Raises:
    ValueError: fewer than two values, or a level outside (0, 1).
  """
  values = np.asarray(values)
  if len(values) < 2:
    raise ValueError(
      f'An interval needs two images or more; there are {len(values)}.'
    )
  if not 0.0 < level < 1.0:
    raise ValueError(f'The level is {level}; it must lie between 0 and 1.')
  draw = np.random.default_rng(seed)
  found = [
    statistic(values[draw.integers(0, len(values), len(values))])
    for _ in range(resamples)
  ]
  return ends(found, level)


def means(
  values: np.ndarray | Sequence[float],
  *,
  resamples: int = 2000,
  seed: int = 0,
) -> np.ndarray:
  """Draws resamples and returns their means.

  Many resamples are drawn at once, which is fast enough for hundreds of
  intervals.

  Args:
    values: [N], one number per image.
    resamples, seed: see `interval`.

  Returns:
    float64 [resamples].
  """
  values = np.asarray(values, np.float64)
  draw = np.random.default_rng(seed)
  each = max(1, BLOCK // len(values))
  found = []
  for start in range(0, resamples, each):
    count = min(each, resamples - start)
    chosen = draw.integers(0, len(values), (count, len(values)))
    found.append(values[chosen].mean(axis=1))
  return np.concatenate(found)


def ends(
  found: np.ndarray | Sequence[float], level: float
) -> tuple[float, float]:
  """Returns (low, high), the central interval with a share of the values.

  Args:
    found: [N], the statistic of every resample.
    level: the share.
  """
  tail = 50.0 * (1.0 - level)
  low, high = np.percentile(found, [tail, 100.0 - tail])
  return float(low), float(high)
