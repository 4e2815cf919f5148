"""Precision and recall of generated images, [Kynkäänniemi et al. 2019].

A set's manifold is the union of balls about its features, each as large as the
distance to the k-th nearest other one. Precision is the share of generated
features inside the real manifold, recall the share of real ones inside the
generated.

Distances are float32 products in blocks, which 50,000 by 50,000 of 2,048 fit
in memory as; |a|^2 + |b|^2 - 2ab then loses digits, so whatever lies nearer to
a decision than they can tell is computed again, as sum (a - b)^2 in float64.
"""

import numpy as np

CONVENTION = (
  'balls to the {k}-th other neighbour, in feature space; decided in float64'
)
BLOCK = 512


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
  real, generated = (np.asarray(x) for x in (real, generated))
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
  centre = real.mean(axis=0, dtype=np.float64)
  real, generated = Rows(real, centre), Rows(generated, centre)
  around_real = radii2(real, k=k, block=block)
  around_generated = radii2(generated, k=k, block=block)
  inside, covered = 0, np.zeros(len(real.exact), bool)
  for start in range(0, len(generated.exact), block):
    part = slice(start, start + block)
    found, doubt = distances2(generated, part, real)
    mine, radii = generated.exact[part], around_generated[part]
    inside += within(found, doubt, around_real, mine, real.exact).sum()
    covered |= within(found.T, doubt.T, radii, real.exact, mine)
  return float(inside / len(generated.exact)), float(covered.mean())


class Rows:
  """Features, and what their distances are made of.

  Attributes:
    exact: [N, D] as given.
    near: float32 [N, D], less a centre.
    squares: float32 [N], |near|^2.
  """

  def __init__(self, features, centre):
    """features: [N, D] of any float type; centre: float64 [D]."""
    self.exact = features
    self.near = (features - centre).astype(np.float32)
    self.squares = np.einsum('nd,nd->n', self.near, self.near)


def radii2(rows, *, k, block=BLOCK):
  """-> float64 [N], squared distance of each row to its k-th other one."""
  found = []
  for start in range(0, len(rows.exact), block):
    distances, doubt = distances2(rows, slice(start, start + block), rows)
    own = np.arange(len(distances))
    distances[own, start + own] = np.inf  # itself
    kth = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    # The k-th lies among those that rounding may have put behind it.
    for i, near in enumerate(distances <= kth + 2 * doubt):
      exact = exact2(rows.exact[start + i], rows.exact, np.flatnonzero(near))
      found.append(np.partition(exact, k - 1)[k - 1])
  return np.array(found)


def within(found, doubt, radii, rows, others):
  """Whether each row lies in the ball about some other.

  Args:
    found: float32 [n, M], squared distances.
    doubt: float32, broadcast to it: how far off they may be.
    radii: float64 [M], squared, of the balls about the others.
    rows, others: [n, D] and [M, D], the features themselves.

  Returns:
    bool [n].
  """
  near = radii.astype(np.float32)
  sure = (found + doubt <= near).any(axis=1)
  perhaps = found - doubt <= near
  for i in np.flatnonzero(perhaps.any(axis=1) & ~sure):
    j = np.flatnonzero(perhaps[i])
    sure[i] = (exact2(rows[i], others, j) <= radii[j]).any()
  return sure


def distances2(rows, part, others):
  """Squared distances of some rows to all others.

  Args:
    rows: Rows.
    part: slice of them, n.
    others: Rows, M.

  Returns:
    (float32 [n, M], float32 [n, 1]: how far off those of a row may be).
  """
  mine = rows.squares[part, None]
  found = rows.near[part] @ others.near.T
  found *= -2.0
  found += mine
  found += others.squares
  # Each of three sums of D products errs by D eps of what it adds up at most.
  terms = 2 * rows.near.shape[1] + 16
  scale = mine + others.squares.max()
  return found, np.float32(terms * np.finfo(np.float32).eps) * scale


def exact2(row, others, chosen):
  """-> float64 [m], squared distances of [D] to the chosen of [M, D]."""
  parts = [np.zeros(0)]
  for start in range(0, len(chosen), BLOCK):
    gap = row.astype(np.float64) - others[chosen[start : start + BLOCK]]
    parts.append(np.einsum('nd,nd->n', gap, gap))
  return np.concatenate(parts)
