"""Adam with moments in bfloat16 follows Adam in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cdm.training import bfloat16_adam

BETAS = dict(b1=0.9, b2=0.999, eps=1e-8)


def second_moment(tx, gradient, steps):
  """-> the second moment of 4,096 equal parameters after these gradients."""

  def step(state, g):
    _, state = tx.update({'w': jnp.full(4096, g)}, state)
    return state, None

  state = tx.init({'w': jnp.zeros(4096)})
  state, _ = jax.lax.scan(step, state, gradient(jnp.arange(steps)))
  return state.nu['w'].astype(jnp.float32)


def test_rounding_at_random_keeps_the_mean_and_takes_the_two_neighbours():
  """1 + 2^-9 lies a quarter of the way from 1 to 1 + 2^-7."""
  x = jnp.full(40_000, 1 + 2**-9, jnp.float32)
  y = bfloat16_adam.stochastic_round(x, seed=0)
  assert y.dtype == jnp.bfloat16
  values, counts = np.unique(np.asarray(y, np.float32), return_counts=True)
  np.testing.assert_array_equal(values, [1, 1 + 2**-7])
  np.testing.assert_allclose(counts[1] / counts.sum(), 0.25, atol=0.01)
  special = jnp.array([0.0, -2.5, jnp.inf, -jnp.inf, jnp.nan])
  kept = bfloat16_adam.stochastic_round(special, seed=1)
  np.testing.assert_array_equal(np.asarray(kept, np.float32), special)


def test_the_second_moment_falls_as_in_float32_where_the_nearest_would_stall():
  """Gradients of 1 for 1,000 steps, then of 0.1 for 3,000."""

  def gradient(step):
    return jnp.where(step < 1000, 1.0, 0.1)

  own = second_moment(
    bfloat16_adam.scale_by_bfloat16_adam(**BETAS), gradient, 4000
  )
  exact = second_moment(optax.scale_by_adam(**BETAS), gradient, 4000)[0]

  def nearest(v, step):
    v = 0.999 * v.astype(jnp.float32) + 0.001 * gradient(step) ** 2
    return v.astype(jnp.bfloat16), None

  stalled, _ = jax.lax.scan(nearest, jnp.bfloat16(0), jnp.arange(4000))
  assert abs(float(own.mean()) / float(exact) - 1) < 0.01
  assert float(own.std()) / float(exact) < 0.1  # the noise of the rounding
  assert float(stalled) > 5 * float(exact)


def test_it_trains_a_toy_problem_as_float32_does():
  """Least squares with noisy gradients: both end as near to the solution."""
  key = jax.random.key(0)
  target = jax.random.normal(key, (64,))

  def distance(tx):
    def step(carry, index):
      x, state = carry
      noise = jax.random.normal(jax.random.fold_in(key, index), x.shape)
      updates, state = tx.update(x - target + 0.3 * noise, state)
      return (x - 1e-2 * updates, state), None

    x = jnp.zeros(64)
    (x, state), _ = jax.lax.scan(step, (x, tx.init(x)), jnp.arange(3000))
    return float(jnp.linalg.norm(x - target)), state

  float32, _ = distance(optax.scale_by_adam(**BETAS))
  own, state = distance(bfloat16_adam.scale_by_bfloat16_adam(**BETAS))
  assert state.mu.dtype == state.nu.dtype == jnp.bfloat16
  assert float32 < 0.8 < float(jnp.linalg.norm(target)) / 4
  assert abs(own / float32 - 1) < 0.1
