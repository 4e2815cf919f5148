"""Weights of the loss, in the space in which each paper states them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.diffusion import losses, noise_levels, process, schedules, weightings
from cdm.diffusion.cosine_logsnr import interpolated_cosine, shifted_cosine
from cdm.diffusion.noise_levels import LogNormal
from cdm.diffusion.parameterization import predict
from cdm.diffusion.preconditioning import Edm

LOGSNR = jnp.linspace(-8.0, 8.0, 33)
SNR = np.exp(np.asarray(LOGSNR, np.float64))
ALL = {
  'min_snr': weightings.min_snr,
  'truncated_snr': weightings.truncated_snr,
  'sigmoid': weightings.sigmoid,
  'edm': weightings.edm,
  'p2': weightings.p2,
}
SPACES = ('eps', 'x_0', 'v', Edm(0.5), Edm(2.0))
SHIFTED = shifted_cosine(1000, image_size=128, noise_size=64)
BETWEEN = interpolated_cosine(
  1000, image_size=128, noise_size_low=32, noise_size_high=128
)


@pytest.mark.parametrize('sd', [0.5, 2.0])
def test_edms_weight_is_that_of_the_paper(sd):
  """[EDM] tab. 1; on the preconditioned output it is 1 at every level."""
  s = SNR**-0.5
  for target, expected in (
    ('x_0', (s**2 + sd**2) / (s * sd) ** 2),
    ('eps', (s**2 + sd**2) / (s * sd) ** 2 * s**2),
    (Edm(sd), np.ones_like(s)),
  ):
    found = weightings.edm(LOGSNR, target, sigma_data=sd)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_edms_weight_is_that_of_edm2s_program():
  notes, stored = oracle('edm2_unet')
  logsnr = jnp.asarray(-2 * np.log(stored['train/sigma_f64']))
  tol = notes['keys']['train/weight_f64']['tol'] | {'rtol': 2e-5}
  mine = weightings.edm(logsnr.reshape(-1), 'x_0').reshape(logsnr.shape)
  assert_matches(mine, stored['train/weight_f64'], tol)


def test_p2_is_that_of_the_paper():
  """1 / (k + SNR)^gamma on eps, [P2]."""
  np.testing.assert_allclose(
    weightings.p2(LOGSNR, 'eps'), 1 / (1 + SNR), rtol=1e-5
  )
  np.testing.assert_allclose(
    weightings.p2(LOGSNR, 'eps', k=2.0, gamma=0.5),
    (2 + SNR) ** -0.5,
    rtol=1e-5,
  )
  np.testing.assert_allclose(weightings.p2(LOGSNR, 'eps', gamma=0.0), 1.0)


@pytest.mark.parametrize('name', ALL)
def test_a_weighted_loss_is_the_same_in_every_space(name):
  rng = np.random.default_rng(0)
  x_0, eps = (jnp.asarray(rng.standard_normal((4, 4, 4, 3))) for _ in range(2))
  logsnr = jnp.asarray([-3.0, -1.0, 1.0, 3.0])

  def denoise(x_t, logsnr):
    return predict('eps', eps + 0.1, x_t, logsnr=logsnr)

  first, *others = (
    losses.simple(
      denoise, x_0, eps, logsnr=logsnr, target=space, weight=ALL[name]
    )
    for space in SPACES
  )
  for other in others:
    np.testing.assert_allclose(other, first, rtol=1e-3)


@pytest.mark.parametrize('name', ALL)
def test_weights_have_an_end_at_both_ends(name):
  logsnr = jnp.asarray([-np.inf, -100.0, 100.0, np.inf])
  for space in SPACES:
    assert jnp.isfinite(ALL[name](logsnr, space)).all()


@pytest.mark.parametrize(
  ('levels', 'schedule'),
  [
    ('discrete', schedules.cosine(1000)),
    ('discrete', SHIFTED),
    ('continuous', SHIFTED),
    ('continuous', BETWEEN),
    (LogNormal(-0.5, 1.5), SHIFTED),
  ],
)
def test_the_integral_of_vdm_is_the_same_whatever_is_drawn(levels, schedule):
  """An eps error of 1 near log-SNR 1: the integral is known by quadrature."""

  def error(logsnr):
    return np.exp(-0.5 * np.square(logsnr - 1.0))

  x = np.linspace(-9.0, 11.0, 20_001)
  expected = np.trapezoid(error(x) / (1 + np.exp(x + 1.0)), x)
  u = jnp.asarray((np.arange(100_000) + 0.5) / 100_000)
  logsnr = noise_levels.draw(levels, schedule, u)
  weight = weightings.sigmoid_integral(
    logsnr,
    'eps',
    log_spread=noise_levels.log_spread(levels, schedule),
    bias=-1.0,
  )
  found = np.mean(np.asarray(weight, float) * error(np.asarray(logsnr, float)))
  assert found == pytest.approx(expected, rel=2e-3)
  # Not so without the density.
  plain = weightings.sigmoid(logsnr, 'eps', bias=-1.0)
  assert np.mean(plain * error(np.asarray(logsnr))) < 0.5 * expected


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('name', ALL)
def test_gradients_have_an_end_at_both_ends(name, dtype):
  logsnr = jnp.asarray([-20.0, 0.0, 15.0], jnp.float32)
  rng = np.random.default_rng(0)
  x_0, eps, output = (
    jnp.asarray(rng.standard_normal((3, 2, 2, 3)), dtype) for _ in range(3)
  )
  for kind in ('v', Edm(0.5)):

    def total(output, kind=kind):
      return losses.simple(
        lambda x_t, logsnr: predict(kind, output, x_t, logsnr=logsnr),
        x_0,
        eps,
        logsnr=logsnr,
        target=kind,
        weight=ALL[name],
      ).sum()

    grad = jax.grad(total)(output).astype(jnp.float32)
    assert jnp.isfinite(grad).all() and (jnp.abs(grad).max() > 0)


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda x: weightings.p2(x, 'eps', gamma=-1.0), r'gamma is -1\.0'),
    (lambda x: weightings.p2(x, 'eps', k=0.0), r'k is 0\.0'),
    (lambda x: weightings.edm(x, 'eps', sigma_data=0.0), r'sigma_data is 0\.0'),
    (lambda x: weightings.edm(x, 'score'), "target is 'score'"),
  ],
)
def test_weights_that_cannot_be_are_refused(call, words):
  with pytest.raises(ValueError, match=words):
    call(jnp.zeros(2))


def test_scales_are_those_of_the_process():
  """An error of eps is 1 / alpha of v's: the check of `_weight` itself."""
  alpha, _ = process.alpha_sigma(np.asarray(LOGSNR, np.float64))
  ratio = weightings.sigmoid(LOGSNR, 'v') / weightings.sigmoid(LOGSNR, 'eps')
  np.testing.assert_allclose(ratio, alpha**2, rtol=1e-5)
