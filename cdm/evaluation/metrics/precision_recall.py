"""Computes the precision and recall of generated images.

[Kynkäänniemi et al. 2019]. The manifold of a set is the union of balls around
its features, whose radius is the distance to the k-th nearest other feature.
Precision is the share of the generated features inside the manifold of the real
ones, recall the share of the real features inside that of the generated ones.

Squared distances |a|^2 + |b|^2 - 2ab come from float32 matrix products in
blocks, so that those of 50,000 by 50,000 rows of 2,048 features fit in memory.
This form loses digits: a distance whose error could change a decision is
computed again, as sum (a - b)^2 in float64.
"""

import numpy as np

from cdm.evaluation.metrics.measure import SetMeasure

CONVENTION = (
  'balls to the {k}-th other neighbour, in feature space; decided in float64'
)
BLOCK = 512
NEIGHBOUR = 3  # k of the balls, as published


def precision_recall(
  real: np.ndarray,
  generated: np.ndarray,
  *,
  k: int = NEIGHBOUR,
  block: int = BLOCK,
) -> tuple[float, float]:
  """Compares two sets of features.

  Args:
    real: [N, D].
    generated: [M, D].
    k: a ball reaches to the k-th neighbour.
    block: number of rows compared at once.

  Returns:
    (precision, recall), floats in [0, 1].

  Raises:
    ValueError: a set has no k neighbours, or the two D differ.
  """
  real, generated = (np.asarray(x) for x in (real, generated))
  if real.ndim != 2 or generated.shape[1:] != real.shape[1:]:
    raise ValueError(
      'Precision and recall compare features [N, D] and [M, D] of one '
      f'network; the shapes are {real.shape} and {generated.shape}.'
    )
  fewest = min(len(real), len(generated))
  if not 1 <= k < fewest:
    raise ValueError(
      f'Balls reach to neighbour {k}, but the smaller set has {fewest} '
      'features; give more images, or a smaller k.'
    )
  # Centering changes no distance, but fewer digits cancel.
  centre = real.mean(axis=0, dtype=np.float64)
  reals, fakes = Rows(real, centre), Rows(generated, centre)
  around_reals = radii2(reals, k=k, block=block)
  around_fakes = radii2(fakes, k=k, block=block)
  inside, covered = 0, np.zeros(len(real), bool)
  for start in range(0, len(generated), block):
    part = slice(start, start + block)
    found, doubt = distances2(fakes, part, reals)
    rows, radii = generated[part], around_fakes[part]
    inside += within(found, doubt, around_reals, rows, real).sum()
    covered |= within(found.T, doubt.T, radii, real, rows)
  return float(inside / len(generated)), float(covered.mean())


class Rows:
  """Features, prepared for distances between them.

  Attributes:
    exact: [N, D], the features.
    near: float32 [N, D], the features less a centre.
    squares: float32 [N], |near|^2.
  """

  def __init__(self, features: np.ndarray, centre: np.ndarray) -> None:
    """Takes features [N, D] of any float type and a centre, float64 [D]."""
    self.exact = features
    self.near = (features - centre).astype(np.float32)
    self.squares = np.einsum('nd,nd->n', self.near, self.near)


def radii2(rows: Rows, *, k: int, block: int = BLOCK) -> np.ndarray:
  """Returns float64 [N], squared distances of the rows to their k-th others."""
  found = []
  for start in range(0, len(rows.exact), block):
    distances, doubt = distances2(rows, slice(start, start + block), rows)
    own = np.arange(len(distances))
    distances[own, start + own] = np.inf  # a row is not its own neighbour
    kth = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    # The true k-th neighbour is among the rows that rounding may have put
    # behind the computed k-th.
    for i, near in enumerate(distances <= kth + 2 * doubt):
      exact = exact2(rows.exact[start + i], rows.exact, np.flatnonzero(near))
      found.append(np.partition(exact, k - 1)[k - 1])
  return np.array(found)


def within(
  found: np.ndarray,
  doubt: np.ndarray,
  radii: np.ndarray,
  rows: np.ndarray,
  others: np.ndarray,
) -> np.ndarray:
  """Returns for each row whether it lies in the ball around one of the others.

  Args:
    found: float32 [n, M], squared distances of rows to others.
    doubt: float32, broadcast to `found`: the largest error that it may have.
    radii: float64 [M], squared radii of the balls around the others.
    rows, others: [n, D] and [M, D], the features, for exact distances.

  Returns:
    bool [n].
  """
  near = radii.astype(np.float32)
  sure = np.any(found + doubt <= near, axis=1)
  perhaps = found - doubt <= near
  for i in np.flatnonzero(perhaps.any(axis=1) & ~sure):
    j = np.flatnonzero(perhaps[i])
    sure[i] = (exact2(rows[i], others, j) <= radii[j]).any()
  return sure


def distances2(
  rows: Rows, part: slice, others: Rows
) -> tuple[np.ndarray, np.ndarray]:
  """Computes the squared distances of some rows to all others.

  Args:
    rows: the rows.
    part: slice of the n rows whose distances are computed.
    others: the M other rows.

  Returns:
    (float32 [n, M], float32 [n, 1]: the largest error that the distances of a
    row may have).
  """
  squares = rows.squares[part, None]
  found = rows.near[part] @ others.near.T
  found *= -2.0
  found += squares
  found += others.squares
  # Each of the three sums of D products has an error of at most D eps times
  # the sum of their absolute values.
  terms = 2 * rows.near.shape[1] + 16
  scale = squares + others.squares.max()
  return found, np.float32(terms * np.finfo(np.float32).eps) * scale


def exact2(
  row: np.ndarray, others: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
  """Returns the squared distances of a row to some others, in float64.

  Args:
    row: [D].
    others: [M, D].
    chosen: int [m], indices of the others.

  Returns:
    float64 [m].
  """
  parts = [np.zeros(0)]
  for start in range(0, len(chosen), BLOCK):
    gap = row.astype(np.float64) - others[chosen[start : start + BLOCK]]
    parts.append(np.einsum('nd,nd->n', gap, gap))
  return np.concatenate(parts)


PRECISION_RECALL = SetMeasure(
  lambda samples, reference, size: dict(
    zip(
      ('precision', 'recall'),
      precision_recall(reference, samples),
      strict=True,
    )
  ),
  CONVENTION.format(k=NEIGHBOUR),
)
