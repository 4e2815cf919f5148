"""The average of the parameters, against published code and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles

from cdm.training import ema, ema_section


def test_it_averages_as_published_code_does():
  """NVlabs/edm2's TraditionalEMA (half-life 10k images, ramp-up 0.09)."""
  description, stored = oracles.oracle('ema')
  settings = description['settings']
  seen = settings['batch'] * np.arange(1, settings['n_updates'] + 1)
  halflife = np.minimum(0.01e6, 0.09 * seen)
  decays = (0.5 ** (settings['batch'] / halflife)).astype(np.float32)

  # It starts from the network before the first update, which is not stored;
  # the first decay, 3e-4 of it, is below the comparison after 49 more.
  def update(average, step):
    params, decay = step
    average = ema.update(average, params, 0, decay=decay, warmup=False)
    return average, average

  params = jnp.asarray(stored['sim/params'], jnp.float32)
  _, averages = jax.lax.scan(update, params[0], (params, jnp.asarray(decays)))
  at = stored['sim/snapshot_nimg'] // settings['batch'] - 1
  # Tolerance: float32 against the oracle's float64.
  np.testing.assert_allclose(
    averages[at], stored['sim/traditional_ema'], rtol=2e-6, atol=2e-6
  )


def test_warm_up_follows_its_formula_up_to_the_decay():
  steps = np.array([0, 1, 8, 90, 10**6])
  decays = [ema.decay_at(s, decay=0.9, warmup=True) for s in steps]
  np.testing.assert_allclose(decays, [0.1, 2 / 11, 0.5, 0.9, 0.9], rtol=1e-6)
  assert float(ema.decay_at(0, decay=0.9, warmup=False)) == np.float32(0.9)


def test_a_constant_decay_gives_the_geometric_sum():
  average = {'w': jnp.array([1.0])}
  for step in range(20):
    average = ema.update(
      average, {'w': jnp.array([3.0])}, step, decay=0.75, warmup=False
    )
  np.testing.assert_allclose(average['w'], [3 - 2 * 0.75**20], rtol=1e-6)


def test_half_of_the_average_is_gone_after_its_half_life_in_images():
  """1,024 images at a batch of 64 are 16 steps, at a batch of 256 four."""
  for batch_size in (64, 256):
    decay = ema.decay_of(1024.0, batch_size=batch_size)
    average = {'w': jnp.ones(1)}
    for step in range(1024 // batch_size):
      average = ema.update(
        average, {'w': jnp.zeros(1)}, step, decay=decay, warmup=False
      )
    np.testing.assert_allclose(average['w'], [0.5], rtol=1e-6)


def test_the_section_takes_a_decay_or_a_half_life_but_not_both():
  def read(**section):
    return ema_section.read_ema_section(section, batch_size=512)

  assert read(decay=0.9, warmup=False) == (0.9, False)
  # EDM's code: 500,000 images at a batch of 512.
  decay, _ = read(decay=None, half_life_images=500_000)
  assert decay == pytest.approx(0.5 ** (512 / 500_000), rel=1e-12)
  for section, message in (
    (dict(decay=0.9, half_life_images=1e5), 'Give one, and set the other'),
    (dict(decay=None), 'are both None; give one'),
    (dict(half_life_images=0.0), 'half_life_images is 0.0; it must be above 0'),
  ):
    with pytest.raises(ValueError, match=message):
      read(**section)


def test_it_starts_as_an_exact_copy_in_float32():
  params = {'w': jnp.array([0.1, -3.0, 1e-8], jnp.bfloat16)}
  average = ema.start(params)
  assert average['w'].dtype == jnp.float32
  np.testing.assert_array_equal(average['w'], params['w'].astype(jnp.float32))


def test_parameters_that_stand_still_leave_it_where_it_is():
  params = {'w': jax.random.normal(jax.random.key(0), (1000,))}
  average = ema.start(params)
  for step in range(5):
    average = ema.update(average, params, step, decay=0.9999, warmup=True)
  np.testing.assert_array_equal(average['w'], params['w'])


def test_a_step_of_one_in_ten_thousand_is_not_lost():
  """It would be in bfloat16, whose neighbours of 1 are 0.4% away."""
  average = {'w': jnp.ones(1)}
  for step in range(100):
    average = ema.update(
      average, {'w': jnp.full(1, 2.0)}, step, decay=0.9999, warmup=False
    )
  np.testing.assert_allclose(average['w'], [2 - 0.9999**100], rtol=1e-5)
