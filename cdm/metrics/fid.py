"""Fréchet distance between Gaussians fitted to two sets of features.

  FID = |m_1 - m_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1^1/2 S_2 S_1^1/2)^1/2)

[Heusel et al. 2017]. The root is taken of a symmetric matrix by its
eigenvalues, in float64: unlike a general matrix square root it cannot turn
complex and needs no small number added where a covariance is singular.
"""

from typing import NamedTuple

import numpy as np

CONVENTION = (
  'float64; covariance over N - 1; trace of the root by symmetric eigenvalues'
)


class Moments(NamedTuple):
  """Mean and scatter of features, kept so that parts add up exactly enough.

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
  def covariance(self):
    """-> float64 [D, D], over N - 1.

    Raises:
      ValueError: of fewer than two features.
    """
    if self.count < 2:
      raise ValueError(
        f'A covariance needs two images or more; there are {self.count}.'
      )
    return self.scatter / (self.count - 1)


def moments(features):
  """Fits one batch.

  Args:
    features: [N, D] of any float type.

  Returns:
    Moments.

  Raises:
    ValueError: not [N, D], or numbers that are not finite.
  """
  x = np.asarray(features, np.float64)
  if x.ndim != 2:
    raise ValueError(f'Features have shape {x.shape}; expected [N, D].')
  if not np.isfinite(x).all():
    raise ValueError('Features are not finite: the network or its input is.')
  mean = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
  x = x - mean
  return Moments(len(x), mean, x.T @ x)


def merge(a, b):
  """Moments of two disjoint sets together [Chan et al. 1979]."""
  if a.mean.shape != b.mean.shape:
    raise ValueError(
      f'Features of {a.mean.size} and of {b.mean.size} dimensions do not go '
      'together; use one network and layer.'
    )
  count = a.count + b.count
  if not a.count or not b.count:
    return a if a.count else b
  gap = b.mean - a.mean
  mean = a.mean + gap * (b.count / count)
  scatter = a.scatter + b.scatter
  scatter = scatter + np.outer(gap, gap) * (a.count * b.count / count)
  return Moments(count, mean, scatter)


def fid(mean_1, covariance_1, mean_2, covariance_2):
  """Fréchet distance between two Gaussians.

  Args:
    mean_1, mean_2: [D].
    covariance_1, covariance_2: [D, D], symmetric.

  Returns:
    float, 0 for equal ones up to rounding.

  Raises:
    ValueError: shapes differ, or numbers that are not finite.
  """
  given = (mean_1, covariance_1, mean_2, covariance_2)
  m_1, s_1, m_2, s_2 = (np.asarray(x, np.float64) for x in given)
  d = m_1.size
  if m_1.shape != m_2.shape or s_1.shape != (d, d) or s_2.shape != (d, d):
    raise ValueError(
      'FID compares means [D] and covariances [D, D] of one network; given '
      f'were {m_1.shape}, {s_1.shape} and {m_2.shape}, {s_2.shape}.'
    )
  if not all(np.isfinite(x).all() for x in (m_1, s_1, m_2, s_2)):
    raise ValueError('Statistics are not finite; make them again.')
  values, vectors = np.linalg.eigh(s_1)
  # Rounding leaves a singular covariance with eigenvalues of -1e-16.
  root = vectors * np.sqrt(np.maximum(values, 0.0))  # S_1 = root root^T
  product = np.linalg.eigvalsh(root.T @ s_2 @ root)
  trace = np.sqrt(np.maximum(product, 0.0)).sum()
  gap = m_1 - m_2
  return float(gap @ gap + np.trace(s_1) + np.trace(s_2) - 2.0 * trace)
