"""The learned weight of a loss, against EDM2's program and its fixed point."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.oracles import assert_matches, oracle, rule_weights

from cdm.models.loss_uncertainty import LossUncertainty, fourier_features


def test_the_features_are_edm2s():
  notes, stored = oracle('edm2_unet')
  name = 'basic/fourier/out_f32'
  mine = fourier_features(
    jnp.asarray(stored['basic/fourier/x'], jnp.float32),
    stored['basic/fourier/freqs'],
    stored['basic/fourier/phases'],
  )
  assert_matches(mine, stored[name], notes['keys'][name]['tol'])


@pytest.mark.parametrize('model', ['cond', 'uncond_options', 'cond_balance'])
def test_a_linear_layer_of_them_is_edm2s(model):
  """Its kernel has magnitude 1 after division by the square root of its size.

  Features at ln(s) / 4 = -logsnr / 8.
  """
  notes, stored = oracle('edm2_unet')
  weights = rule_weights(notes['weights'][model])
  raw = weights['logvar_linear.weight'][0].astype(np.float64)
  norm = np.sqrt(np.square(raw).sum())
  kernel = raw / (norm + 1e-4 * np.sqrt(len(raw)))
  logsnr = -2 * np.log(stored[f'{model}/sigma'])
  features = fourier_features(
    jnp.asarray(-logsnr / 8, jnp.float32),
    weights['logvar_fourier.freqs'],
    weights['logvar_fourier.phases'],
  )
  name = f'{model}/logvar_f32'
  mine = (np.asarray(features, np.float64) * kernel).sum(-1)
  tol = notes['keys'][name]['tol'] | {'atol': 2e-4}
  assert_matches(mine, stored[name].reshape(-1), tol)


def test_it_starts_at_zero_and_distinguishes_noise_levels():
  module, logsnr = LossUncertainty(32), jnp.linspace(-15.0, 15.0, 7)
  params = module.init(jax.random.key(0), logsnr)
  np.testing.assert_array_equal(module.apply(params, logsnr), np.zeros(7))
  moved = jax.tree.map(
    lambda p: p + jax.random.normal(jax.random.key(1), p.shape), params
  )
  assert len(np.unique(module.apply(moved, logsnr))) == 7


def test_what_is_learned_is_the_log_of_the_loss():
  """(L / e^u) + u is least at u = ln L, here of a loss of known shape."""
  logsnr = jnp.linspace(-10.0, 10.0, 64)
  loss = 0.02 + 3.0 * jax.nn.sigmoid(-logsnr)
  module = LossUncertainty(64)
  params = module.init(jax.random.key(0), logsnr)
  tx = optax.adam(0.02)

  def objective(params):
    u = module.apply(params, logsnr)
    return jnp.mean(loss * jnp.exp(-u) + u)

  def step(carry, _):
    params, state = carry
    updates, state = tx.update(jax.grad(objective)(params), state)
    return (optax.apply_updates(params, updates), state), None

  (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=5000)
  u = module.apply(params, logsnr)
  np.testing.assert_allclose(u, np.log(loss), atol=0.05)
  # No weight has a lower objective than the mean of 1 + ln L.
  least = float(jnp.mean(1 + jnp.log(loss)))
  assert least <= float(objective(params)) < least + 1e-3
