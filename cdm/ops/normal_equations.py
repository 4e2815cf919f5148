"""Sums and solves the normal equations of least squares in float32.

min_h sum (p^T h - t)^2 + ridge |h|^2   <=>   (Q + ridge I) h = V
Q = sum p p^T,  V = sum p t
"""

import jax
import jax.numpy as jnp

# Relative to the mean eigenvalue of Q; float32 can factor what is left.
PRECONDITIONER_RIDGE = 1e-4
# On patches of photographs 20 iterations give the filters of float64 to 1e-4.
ITERATIONS = 20


def add_exactly(
  total: jax.Array, error: jax.Array, more: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Adds float32 arrays to a sum of two parts, TwoSum of Knuth.

  The sum total + error has about 48 bits, so that the sums of any number of
  batches lose nothing.

  Returns:
    (total, error) with `more` added.
  """
  new = total + more
  back = new - total
  lost = (total - (new - back)) + (more - back)
  error = error + lost
  high = new + error
  return high, error - (high - new)


def ridge_solve(q: jax.Array, v: jax.Array, *, ridge: float) -> jax.Array:
  """Solves (q + ridge I) h = v for many small systems.

  A float32 factorization of an ill-conditioned q needs a larger ridge than the
  solution should have. It therefore only preconditions conjugate gradients,
  which solve the system itself.

  Args:
    q: float32 [N, n, n], symmetric and positive semidefinite.
    v: float32 [N, n].
    ridge: above 0.

  Returns:
    h: float32 [N, n].
  """
  n = q.shape[-1]
  eye = jnp.eye(n)[None]
  size = jnp.trace(q, axis1=1, axis2=2)[:, None, None] / n
  factor = jnp.linalg.cholesky(q + (ridge + PRECONDITIONER_RIDGE * size) * eye)

  def guide(r):
    half = jax.lax.linalg.triangular_solve(
      factor, r[..., None], left_side=True, lower=True
    )
    return jax.lax.linalg.triangular_solve(
      factor, half, left_side=True, lower=True, transpose_a=True
    )[..., 0]

  def times(h):
    product = jnp.einsum(
      'cij,cj->ci', q, h, precision=jax.lax.Precision.HIGHEST
    )
    return product + ridge * h

  def step(state, _):
    h, r, p, rz = state
    qp = times(p)
    rate = rz / jnp.maximum((p * qp).sum(-1), 1e-30)
    h, r = h + rate[:, None] * p, r - rate[:, None] * qp
    z = guide(r)
    after = (r * z).sum(-1)
    p = z + (after / jnp.maximum(rz, 1e-30))[:, None] * p
    return (h, r, p, after), None

  z = guide(v)
  state = jnp.zeros_like(v), v, z, (v * z).sum(-1)
  return jax.lax.scan(step, state, length=ITERATIONS)[0][0]


def groups(
  class_: jax.Array, count: int, *, size: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
  """Divides rows into groups of one class each, whose products share a sum.

  Args:
    class_: int32 [N], the class of each row.
    count: number of classes.
    size: most rows of a group.
    chunk: G is a multiple of it.

  Returns:
    (members int32 [G, size], class int32 [G]), with N in the place of members
    that are missing. G is large enough for any classes.
  """
  total = class_.shape[0]
  most = -(-(total // size + count) // chunk) * chunk
  order = jnp.argsort(class_)
  sizes = jnp.zeros(count, jnp.int32).at[class_].add(1)
  number = -(-sizes // size)
  first_group = jnp.cumsum(number) - number
  first_member = jnp.cumsum(sizes) - sizes
  ordered = class_[order]
  rank = jnp.arange(total) - first_member[ordered]
  slot = first_group[ordered] * size + rank
  members = jnp.full(most * size, total, jnp.int32).at[slot].set(order)
  owner = jnp.zeros(most, jnp.int32).at[slot // size].set(ordered)
  return members.reshape(most, size), owner
