"""EDM's preconditioning: its numbers, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.known_denoisers import gaussian
from support.oracles import assert_matches, oracle

from cdm.diffusion import losses, noise_levels, process, weightings
from cdm.diffusion.cosine_logsnr import shifted_cosine
from cdm.diffusion.parameterization import network_input, predict, target
from cdm.diffusion.preconditioning import Edm

ENDS = [-np.inf, -100.0, -30.0, 30.0, 100.0, np.inf]
WIDE = shifted_cosine(4000, image_size=64, noise_size=64)


def stub(x_t, logsnr):
  """The oracle's network F(u, c) = sin(3 u) + 0.1 c, preconditioned."""
  u = network_input(Edm(), x_t, logsnr=logsnr)
  c = process.expand_like(-logsnr / 8, x_t)  # ln(s) / 4
  return predict(Edm(), jnp.sin(3 * u) + 0.1 * c, x_t, logsnr=logsnr)


def test_a_preconditioned_network_gives_the_images_of_edms_program():
  notes, stored = oracle('samplers')
  sigma, x = stored['edm_precond/sigma'], stored['edm_precond/x']
  logsnr = jnp.asarray(-2 * np.log(sigma))
  alpha, _ = process.alpha_sigma(process.expand_like(logsnr, x))
  given = network_input(Edm(), alpha * x, logsnr=logsnr)
  found = stub(alpha * x, logsnr)
  for key, mine in (
    ('network_input', given),
    ('c_noise', -logsnr / 8),
    ('D', found.x_0),
  ):
    name = f'edm_precond/{key}'
    assert_matches(mine, stored[name], notes['keys'][name]['tol'], name)
  wide = sigma[:, None, None, None]
  np.testing.assert_allclose(
    found.eps, (x - stored['edm_precond/D']) / wide, rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize(
  ('of', 'weight'), [('x_0', weightings.edm), (Edm(), None)], ids=['D', 'F']
)
def test_the_loss_is_that_of_edms_program(of, weight):
  """Weighted in x_0, or not weighted at all in what the network predicts."""
  notes, stored = oracle('samplers')
  z = stored['edm_loss/rnd_normal'].reshape(-1)
  logsnr = noise_levels.draw(
    noise_levels.LogNormal(), WIDE, jax.scipy.special.ndtr(jnp.asarray(z))
  )
  np.testing.assert_allclose(np.exp(-logsnr / 2), np.exp(1.2 * z - 1.2), 1e-5)
  mine = losses.simple(
    stub,
    jnp.asarray(stored['edm_loss/images']),
    jnp.asarray(stored['edm_loss/noise']),
    logsnr=logsnr,
    target=of,
    weight=weight,
  )
  name = 'edm_loss/loss'
  expected = stored[name].mean((1, 2, 3))
  assert_matches(mine, expected, notes['keys'][name]['tol'], name)


def test_with_unit_deviation_the_output_is_minus_v():
  logsnr = jnp.linspace(-20.0, 20.0, 9)
  rng = np.random.default_rng(0)
  x_t, f = (jnp.asarray(rng.standard_normal((9, 4, 4, 3))) for _ in range(2))
  mine = predict(Edm(1.0), f, x_t, logsnr=logsnr)
  v = predict('v', -f, x_t, logsnr=logsnr)
  np.testing.assert_allclose(mine.x_0, v.x_0, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(mine.eps, v.eps, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(
    network_input(Edm(1.0), x_t, logsnr=logsnr), x_t, rtol=1e-6
  )


@pytest.mark.parametrize('std', [0.1, 0.5, 1.0, 3.0])
def test_what_goes_in_and_what_is_asked_for_have_unit_variance(std):
  """[EDM] sec. 5 asks for that; 200,000 values know it to 0.3 %."""
  rng = np.random.default_rng(1)
  logsnr = jnp.asarray([-12.0, -2.0, 0.0, 3.0, 12.0])
  x_0 = jnp.asarray(std * rng.standard_normal((5, 200_000)))
  eps = jnp.asarray(rng.standard_normal((5, 200_000)))
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  given = network_input(Edm(std), x_t, logsnr=logsnr)
  np.testing.assert_allclose(given.std(1), 1.0, rtol=0.01)
  asked = target(Edm(std), x_0, eps, logsnr=logsnr)
  np.testing.assert_allclose(asked.std(1), 1.0, rtol=0.01)
  # ... and is unrelated to what goes in: a Gaussian leaves nothing to learn.
  np.testing.assert_allclose((given * asked).mean(1), 0.0, atol=0.01)


def test_of_gaussian_data_the_best_output_is_zero():
  """D = c_skip x is then exact, so the network has nothing to add."""
  logsnr = jnp.linspace(-8.0, 8.0, 5)
  x_t = jnp.asarray(np.random.default_rng(2).standard_normal((5, 4, 4, 3)))
  best = gaussian(0.5)(x_t, logsnr)
  f = target(Edm(0.5), best.x_0, best.eps, logsnr=logsnr)
  np.testing.assert_allclose(f, 0.0, atol=2e-5)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_both_ends_keep_their_digits_and_have_gradients(dtype):
  logsnr = jnp.asarray(ENDS, jnp.float32)
  rng = np.random.default_rng(0)
  shape = (len(ENDS), 4, 4, 3)
  x_0, eps = rng.uniform(-1, 1, shape), rng.standard_normal(shape)
  x_0, eps = (jnp.asarray(x, dtype) for x in (x_0, eps))
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  f = target(Edm(), x_0, eps, logsnr=logsnr)
  back = predict(Edm(), f, x_t, logsnr=logsnr)
  atol = 1e-6 if dtype == jnp.float32 else 2e-2
  np.testing.assert_allclose(back.x_0, x_0.astype(jnp.float32), atol=atol)
  np.testing.assert_allclose(back.eps, eps.astype(jnp.float32), atol=atol)

  def total(f):
    seen = predict(Edm(), f, x_t, logsnr=logsnr)
    return losses.simple(
      lambda *_: seen, x_0, eps, logsnr=logsnr, target=Edm()
    ).sum()

  grad = jax.grad(total)(0.5 * f)
  assert jnp.isfinite(grad.astype(jnp.float32)).all()
  assert (jnp.abs(grad.astype(jnp.float32)).max((1, 2, 3)) > 0).all()


@pytest.mark.parametrize('sigma_data', [0.0, -1.0])
def test_data_without_a_spread_are_refused(sigma_data):
  with pytest.raises(ValueError, match='sigma_data is'):
    Edm(sigma_data)
  with pytest.raises(ValueError, match='sigma_data is'):
    weightings.edm(jnp.zeros(1), 'x_0', sigma_data=sigma_data)
