"""Precision and recall of generated images, [Kynkäänniemi et al. 2019].

A set's manifold is the union of balls about its features, each as large as the
distance to the k-th nearest other one. Precision is the share of generated
features inside the real manifold, recall the share of real ones inside the
generated.

Distances are taken in blocks, so that 50,000 by 50,000 fit in memory: a block
of 1,024 rows takes 0.4 GB.
"""

import numpy as np

CONVENTION = (
  'balls to the {k}-th other neighbour, float64 distances in feature space'
)
BLOCK = 1024


def precision_recall(real, generated, *, k=3, block=BLOCK):
  """Compares two sets of features.

  Args:
    real: [N, D].
    generated: [M, D].
    k: neighbours that a ball reaches.
    block: rows compared at once.

  Returns:
    (precision, recall), floats in [0, 1].

  Raises:
    ValueError: k neighbours are not there, or different D.
  """
  real, generated = (np.asarray(x, np.float64) for x in (real, generated))
  if real.ndim != 2 or generated.shape[1:] != real.shape[1:]:
    raise ValueError(
      'Precision and recall compare features [N, D] and [M, D] of one '
      f'network; given were {real.shape} and {generated.shape}.'
    )
  fewest = min(len(real), len(generated))
  if not 1 <= k < fewest:
    raise ValueError(
      f'Balls reach to neighbour {k}, but the smaller set has {fewest} '
      'features; give more images, or a smaller k.'
    )
  # Distances do not change, but cancel less.
  centre = real.mean(axis=0)
  real, generated = real - centre, generated - centre
  around_real = radii2(real, k=k, block=block)
  around_generated = radii2(generated, k=k, block=block)
  inside, covered = 0, np.zeros(len(real), bool)
  for start in range(0, len(generated), block):
    part = slice(start, start + block)
    distances = _distances2(generated[part], real)
    inside += int((distances <= around_real).any(axis=1).sum())
    covered |= (distances <= around_generated[part, None]).any(axis=0)
  return inside / len(generated), float(covered.mean())


def radii2(x, *, k, block=BLOCK):
  """-> float64 [N], squared distance of each row to its k-th other one."""
  parts = []
  for start in range(0, len(x), block):
    distances = _distances2(x[start : start + block], x)
    rows = np.arange(len(distances))
    distances[rows, start + rows] = -1.0  # itself, before all others
    parts.append(np.partition(distances, k, axis=1)[:, k])
  return np.concatenate(parts)


def _distances2(x, y):
  """[n, D], [m, D] -> squared distances [n, m], never negative."""
  square = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)
  square -= 2.0 * (x @ y.T)
  return np.maximum(square, 0.0, out=square)
