"""Confidence intervals by resampling, for numbers of few images."""

import numpy as np


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
  tail = 50.0 * (1.0 - level)
  low, high = np.percentile(found, [tail, 100.0 - tail])
  return float(low), float(high)
