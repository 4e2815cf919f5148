"""Computes the KID, the squared MMD with the kernel k(x, y) = (x.y / D + 1)^3.

Kernel Inception Distance, [Bińkowski et al. 2018]. The result is the mean and
the standard deviation, over random subsets, of the unbiased estimate, which may
be negative.
"""

import numpy as np

from cdm.evaluation.metrics.measure import SetMeasure

CONVENTION = (
  'unbiased MMD^2, kernel (x.y/D + 1)^3, {subsets} subsets of {size} drawn '
  'without replacement by RandomState({seed}); mean, standard deviation'
)

SUBSETS, SEED = 100, 2020  # torch-fidelity's


def kid(
  features_1: np.ndarray,
  features_2: np.ndarray,
  *,
  subsets: int = SUBSETS,
  size: int = 1000,
  seed: int = SEED,
) -> tuple[float, float]:
  """Compares two sets of features.

  Subsets and seed are those of torch-fidelity.

  Args:
    features_1, features_2: [N, D] and [M, D].
    subsets: number of subsets.
    size: rows of a subset, drawn without replacement.
    seed: seed of the draw.

  Returns:
    (mean, standard deviation), floats.

  Raises:
    ValueError: a set has fewer rows than a subset, or the two D differ.
  """
  x, y = _checked(features_1), _checked(features_2)
  fewest = min(len(x), len(y))
  if not 2 <= size <= fewest:
    raise ValueError(
      f'KID draws subsets of {size} images, but there are {len(x)} and '
      f'{len(y)}; take a size from 2 to {fewest}.'
    )
  draw = np.random.RandomState(seed)
  values = []
  for _ in range(subsets):
    a = x[draw.choice(len(x), size, replace=False)]
    b = y[draw.choice(len(y), size, replace=False)]
    values.append(mmd2(a, b))
  return float(np.mean(values)), float(np.std(values))


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """Estimates the squared MMD between the rows of two sets, without bias.

  Args:
    x, y: [N, D] and [M, D].

  Returns:
    float.
  """
  x, y = _checked(x), _checked(y)
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      f'Features of {x.shape[1]} and of {y.shape[1]} dimensions cannot be '
      'compared; use one network and layer.'
    )
  n, m = len(x), len(y)
  within = (_total(x, x) - _diagonal(x)) / (n * (n - 1))
  within += (_total(y, y) - _diagonal(y)) / (m * (m - 1))
  return float(within - 2.0 * _total(x, y) / (n * m))


def _checked(features: np.ndarray) -> np.ndarray:
  x = np.asarray(features, np.float64)
  if x.ndim != 2 or len(x) < 2:
    raise ValueError(f'Features have shape {x.shape}; expected [N, D], N >= 2.')
  return x


def _total(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the sum of k(x, y) over all pairs of rows."""
  return ((x @ y.T / x.shape[1] + 1.0) ** 3).sum()


def _diagonal(x: np.ndarray) -> float:
  """Returns the sum of k(x, x) over the rows."""
  return (((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 3).sum()


def _of_sets(
  samples: np.ndarray, reference: np.ndarray, size: int
) -> dict[str, float]:
  mean, std = kid(samples, reference, size=size)
  return {'kid': mean, 'kid_std': std}


KID = SetMeasure(
  _of_sets, CONVENTION.format(subsets=SUBSETS, size='{size}', seed=SEED)
)
