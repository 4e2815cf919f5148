import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import parameterization, process
from cdm.diffusion.parameterization import KINDS, predict, target


def pair(logsnr):
  rng = np.random.default_rng(0)
  shape = (len(logsnr), 4, 4, 3)
  x_0 = jnp.asarray(rng.uniform(-1, 1, shape))
  return x_0, jnp.asarray(rng.standard_normal(shape))


def test_v_is_that_of_progressive_distillation():
  """[PD] app. D with angle phi: x_t = cos x_0 + sin eps, v = d x_t / d phi."""
  phi = 0.4
  logsnr = jnp.full(2, 2 * np.log(np.cos(phi) / np.sin(phi)))
  x_0, eps = pair(logsnr)
  v = target('v', x_0, eps, logsnr=logsnr)
  np.testing.assert_allclose(
    v, np.cos(phi) * eps - np.sin(phi) * x_0, atol=1e-6
  )
  h = 1e-3
  logsnrs = [2 * np.log(1 / np.tan(phi + d)) for d in (-h, h)]
  before, after = (
    process.q_sample(x_0, eps, logsnr=jnp.full(2, x)) for x in logsnrs
  )
  np.testing.assert_allclose(v, (after - before) / (2 * h), atol=1e-3)


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_output_gives_back_the_image_and_the_noise(kind):
  logsnr = jnp.linspace(-4.0, 4.0, 9)
  x_0, eps = pair(logsnr)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  output = target(kind, x_0, eps, logsnr=logsnr)
  prediction = predict(kind, output, x_t, logsnr=logsnr)
  np.testing.assert_allclose(prediction.x_0, x_0, atol=1e-5)
  np.testing.assert_allclose(prediction.eps, eps, atol=1e-5)
  assert prediction.var is None
  for other in KINDS:
    np.testing.assert_allclose(
      target(other, prediction.x_0, prediction.eps, logsnr=logsnr),
      target(other, x_0, eps, logsnr=logsnr),
      atol=1e-5,
    )


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('logsnr', [-np.inf, -100, -30, 30, 100, np.inf])
def test_predictions_are_finite_at_extreme_noise_levels(kind, logsnr):
  logsnr = jnp.full(2, logsnr)
  x_0, eps = pair(logsnr)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  output = target(kind, x_0, eps, logsnr=logsnr) + 0.01
  prediction = predict(kind, output, x_t, logsnr=logsnr)
  assert jnp.isfinite(prediction.x_0).all()
  assert jnp.isfinite(prediction.eps).all()
  # What the network says itself is kept to the last bit.
  if kind != 'v':
    np.testing.assert_array_equal(getattr(prediction, kind), output)


def test_learned_variance_runs_between_its_bounds():
  """[IDDPM] eq. 15: v = 1 is beta, v = 0 the geometric mean."""
  var = jnp.asarray([-1.0, 0.0, 1.0])
  log_variance = parameterization.learned_log_variance(
    var, log_beta=np.log(0.04), log_variance=np.log(0.01)
  )
  np.testing.assert_allclose(
    jnp.exp(log_variance), [0.01, 0.02, 0.04], rtol=1e-6
  )


def test_an_unknown_kind_is_named():
  x = jnp.zeros((1, 2, 2, 3))
  with pytest.raises(ValueError, match="prediction is 'score'; known kinds"):
    predict('score', x, x, logsnr=jnp.zeros(1))
  with pytest.raises(ValueError, match="prediction is 'score'; known kinds"):
    target('score', x, x, logsnr=jnp.zeros(1))
