"""Confidence intervals by resampling, for numbers of few images."""

import numpy as np

BLOCK = 1 << 20  # values that are resampled at once


def interval(values, *, level=0.95, resamples=2000, seed=0, statistic=np.mean):
  """Percentile bootstrap of a statistic of independent values.

  Args:
    values: [N, ...] one row per image (or pair).
    level: share of resamples inside.
    resamples: how many are drawn, with replacement.
    seed: of the draw.
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
    raise ValueError(f'The level is {level}; it lies between 0 and 1.')
  draw = np.random.default_rng(seed)
  found = [
    statistic(values[draw.integers(0, len(values), len(values))])
    for _ in range(resamples)
  ]
  return ends(found, level)


def means(values, *, resamples=2000, seed=0):
  """Means of resamples, many at once: quick, for hundreds of intervals.

  Args:
    values: [N] one number per image.
    resamples, seed: as `interval`.

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


def ends(found, level):
  """-> (low, high) between which `level` of what was found lies."""
  tail = 50.0 * (1.0 - level)
  low, high = np.percentile(found, [tail, 100.0 - tail])
  return float(low), float(high)
