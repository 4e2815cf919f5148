"""Computes the FID, the Fréchet distance between two sets of features.

The distance is that between the Gaussians fitted to the sets:

  FID = |m_1 - m_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1^1/2 S_2 S_1^1/2)^1/2)

[Heusel et al. 2017]. With S_1 = R R^T the last trace is the sum of the roots of
the eigenvalues of R^T S_2 R, which is symmetric: in float64, unlike a general
matrix square root, it cannot turn complex and needs no small number added where
a covariance is singular.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cdm.evaluation.metrics.measure import SetMeasure

CONVENTION = (
  'float64; covariance over N - 1; trace of the root by symmetric eigenvalues'
)

EPSILON = np.finfo(np.float64).eps
# Relative error that a covariance may have, as storing it in float32 makes.
SLACK = 1e-5


class Moments(NamedTuple):
  """Mean and scatter of features; the moments of parts of a set can be merged.

  Attributes:
    count: N.
    mean: float64 [D].
    scatter: float64 [D, D], the sum of (x - mean)(x - mean)^T; None where only
      mean and covariance were stored and N is not known.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """Returns the covariance, float64 [D, D], with N - 1 in the denominator.

    Raises:
      ValueError: there are fewer than two features.
    """
    if self.count < 2:
      raise ValueError(
        f'A covariance needs two images or more; there are {self.count}.'
      )
    return self.scatter / (self.count - 1)


def moments(features: npt.ArrayLike) -> Moments:
  """Computes the moments of one batch.

  Args:
    features: [N, D] of any float type.

  Returns:
    Moments.

  Raises:
    ValueError: the features are not [N, D], or not finite.
  """
  x = np.asarray(features, np.float64)
  if x.ndim != 2:
    raise ValueError(f'Features have shape {x.shape}; expected [N, D].')
  if not np.isfinite(x).all():
    raise ValueError(
      'Features are not finite; check the weights of the network.'
    )
  mean = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
  x = x - mean
  return Moments(len(x), mean, x.T @ x)


def merge(a: Moments, b: Moments) -> Moments:
  """Returns the moments of the union of two disjoint sets, [Chan et al. 1979].

  Raises:
    ValueError: the features have different dimensions.
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(
      f'Features of {a.mean.size} and of {b.mean.size} dimensions cannot be '
      'compared; use one network and layer.'
    )
  count = a.count + b.count
  if not a.count or not b.count:
    return a if a.count else b
  gap = b.mean - a.mean
  mean = a.mean + gap * (b.count / count)
  scatter = a.scatter + b.scatter
  scatter = scatter + np.outer(gap, gap) * (a.count * b.count / count)
  return Moments(count, mean, scatter)


def fid(
  mean_1: np.ndarray,
  covariance_1: np.ndarray,
  mean_2: np.ndarray,
  covariance_2: np.ndarray,
) -> float:
  """Computes the Fréchet distance between two Gaussians.

  Args:
    mean_1, mean_2: [D].
    covariance_1, covariance_2: [D, D], symmetric.

  Returns:
    float; 0, up to rounding, for equal Gaussians.

  Raises:
    ValueError: the shapes differ, a number is not finite, or a matrix is not a
      covariance.
  """
  given = (mean_1, covariance_1, mean_2, covariance_2)
  m_1, s_1, m_2, s_2 = (np.asarray(x, np.float64) for x in given)
  d = m_1.size
  if m_1.shape != m_2.shape or s_1.shape != (d, d) or s_2.shape != (d, d):
    raise ValueError(
      'FID compares means [D] and covariances [D, D] of one network; the '
      f'shapes are {m_1.shape}, {s_1.shape} and {m_2.shape}, {s_2.shape}.'
    )
  if not all(np.isfinite(x).all() for x in (m_1, m_2)):
    raise ValueError('Statistics are not finite; make them again.')
  for covariance in (s_1, s_2):
    check_covariance(covariance)
  trace = trace_of_root(s_1, s_2)
  gap = m_1 - m_2
  return float(gap @ gap + np.trace(s_1) + np.trace(s_2) - 2.0 * trace)


def check_covariance(covariance: np.ndarray) -> None:
  """Raises ValueError unless a matrix may be a covariance.

  Negative eigenvalues are not looked for here, because that takes longer: see
  `check_eigenvalues`.

  Args:
    covariance: [D, D].
  """
  s = np.asarray(covariance)
  if not np.isfinite(s).all():
    raise ValueError('Statistics are not finite; make them again.')
  most = np.abs(s).max(initial=0.0)
  if (
    np.abs(s - s.T).max(initial=0.0) > SLACK * most or (s.diagonal() < 0).any()
  ):
    raise ValueError(
      'sigma is not a covariance: it is not symmetric, or has a negative '
      'variance; make the statistics again.'
    )


def check_eigenvalues(covariance: np.ndarray) -> None:
  """Raises ValueError if a symmetric matrix has negative eigenvalues."""
  s = np.asarray(covariance, np.float64)
  if _cholesky(s) is None:
    _refuse_negative(np.linalg.eigvalsh(s))


def trace_of_root(s_1: np.ndarray, s_2: np.ndarray) -> float:
  """Computes tr (S_1^1/2 S_2 S_1^1/2)^1/2.

  R (see the module) is the Cholesky factor, which takes a tenth of the time of
  eigenvectors and loses no digits where eigenvalues differ by many orders. A
  singular S has none, so its R is made of its eigenvectors. Those that come
  from rounding are left out, because their roots would add up.

  Args:
    s_1, s_2: float64 [D, D], covariances.

  Returns:
    float.

  Raises:
    ValueError: a matrix has negative eigenvalues.
  """
  roots = [_cholesky(s) for s in (s_1, s_2)]
  if roots[0] is None:
    product = _congruent(_of_rank(s_1), s_2)
  elif roots[1] is None:
    product = _congruent(_of_rank(s_2), s_1)
  else:
    product = _congruent(roots[0], s_2)
  values = np.linalg.eigvalsh(product)
  _refuse_negative(values)
  if roots[0] is None and roots[1] is None:
    values = values[values > _noise(values)]
  return float(np.sqrt(np.maximum(values, 0.0)).sum())


def _cholesky(s: np.ndarray) -> np.ndarray | None:
  """Returns L with S = L L^T, or None if S is singular in float64."""
  try:
    root = np.linalg.cholesky(s)
  except np.linalg.LinAlgError:
    return None
  # A pivot as small as this comes from rounding alone.
  least = np.square(root.diagonal().min(initial=np.inf))
  return None if least <= 8 * EPSILON * s.diagonal().max(initial=0) else root


def _of_rank(s: np.ndarray) -> np.ndarray:
  """Returns R [D, r] with S = R R^T up to rounding, where r is the rank."""
  values, vectors = np.linalg.eigh(s)
  _refuse_negative(values)
  kept = values > _noise(values)
  return vectors[:, kept] * np.sqrt(values[kept])


def _congruent(root: np.ndarray, s: np.ndarray) -> np.ndarray:
  """Returns R^T S R."""
  return root.T @ s @ root


def _noise(values: np.ndarray) -> float:
  """Returns the size of an eigenvalue that may come from rounding alone."""
  return len(values) * EPSILON * np.max(values, initial=0.0)


def _refuse_negative(values: np.ndarray) -> None:
  """Raises ValueError if the rising eigenvalues start well below 0."""
  if len(values) and values[0] < -SLACK * max(values[-1], 0.0):
    raise ValueError(
      f'sigma is not a covariance: its eigenvalues reach from {values[0]:.3g} '
      f'to {values[-1]:.3g}, and none may be negative; make the statistics '
      'again.'
    )


FID = SetMeasure(
  lambda samples, reference, size: {'fid': fid(*samples, *reference)},
  CONVENTION,
)
FRECHET = SetMeasure(
  lambda samples, reference, size: {'fd': fid(*samples, *reference)},
  f'{CONVENTION}; of the features of the network that the recipe names, so not '
  'an FID',
)
FID_SPATIAL = SetMeasure(
  lambda samples, reference, size: {'sfid': fid(*samples, *reference)},
  CONVENTION,
)
