"""Sums that lose no digits, and least squares in float32."""

import jax
import jax.numpy as jnp
import numpy as np

from cdm.ops import normal_equations


def test_a_sum_of_ten_thousand_batches_loses_no_digit():
  rng = np.random.default_rng(0)
  parts = rng.lognormal(sigma=3.0, size=(10_000, 5)).astype(np.float32)
  parts[::3] *= -1

  @jax.jit
  def total(parts):
    def add(sums, part):
      return normal_equations.add_exactly(*sums, part), None

    return jax.lax.scan(add, (jnp.zeros(5), jnp.zeros(5)), parts)[0]

  high, low = (np.asarray(x, np.float64) for x in total(parts))
  exact = parts.astype(np.float64).sum(axis=0)
  size = np.abs(parts.astype(np.float64)).sum(axis=0)
  assert (np.abs(high + low - exact) < 1e-11 * size).all()
  naive = np.asarray(
    jax.jit(
      lambda x: jax.lax.scan(lambda s, p: (s + p, None), jnp.zeros(5), x)[0]
    )(parts),
    np.float64,
  )
  assert (np.abs(naive - exact) > 1e-9 * size).any()


def test_ill_conditioned_systems_are_solved_as_in_float64():
  """The eigenvalues span 7 decades, as those of patches that were enlarged."""
  rng = np.random.default_rng(1)
  basis = np.linalg.qr(rng.normal(size=(3, 20, 20)))[0]
  values = np.logspace(4, -3, 20)
  q = np.einsum('nij,j,nkj->nik', basis, values, basis).astype(np.float32)
  v = np.einsum('nij,nj->ni', q, rng.normal(size=(3, 20))).astype(np.float32)
  ridge = 0.1
  exact = np.linalg.solve(
    q.astype(np.float64) + ridge * np.eye(20), v.astype(np.float64)[..., None]
  )[..., 0]
  found = jax.jit(lambda q, v: normal_equations.ridge_solve(q, v, ridge=ridge))(
    q, v
  )
  np.testing.assert_allclose(found, exact, atol=0.02)


def test_a_system_without_data_has_the_solution_zero():
  h = normal_equations.ridge_solve(
    jnp.zeros((2, 5, 5)), jnp.zeros((2, 5)), ridge=0.1
  )
  assert not np.asarray(h).any()
