import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import process


def test_log_snr_means_what_it_says():
  logsnr = np.linspace(-10.0, 10.0, 41)
  alpha, sigma = process.alpha_sigma(jnp.asarray(logsnr, jnp.float32))
  assert alpha.dtype == sigma.dtype == jnp.float32
  np.testing.assert_allclose(2 * np.log(alpha / sigma), logsnr, atol=1e-5)
  np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-6)


def test_on_the_host_log_snr_is_float64():
  logsnr = np.linspace(-40.0, 40.0, 41)
  for given in (logsnr, logsnr.astype(np.float32)):
    alpha, sigma = process.alpha_sigma(given)
    assert isinstance(alpha, np.ndarray) and alpha.dtype == np.float64
    np.testing.assert_allclose(2 * np.log(alpha / sigma), logsnr, rtol=1e-14)


@pytest.mark.parametrize('xp', [np, jnp])
def test_scales_stay_finite_to_the_very_ends(xp):
  logsnr = xp.asarray([-np.inf, -160.0, 160.0, np.inf])
  alpha, sigma = process.alpha_sigma(logsnr)
  np.testing.assert_allclose(alpha, [0, np.exp(-80), 1, 1], rtol=1e-5)
  np.testing.assert_allclose(sigma, [1, 1, np.exp(-80), 0], rtol=1e-5)


def test_x_t_has_the_mean_and_spread_of_ddpm_eq_4():
  """alpha_bar = 0.2, so logsnr = log(0.2 / 0.8)."""
  rng = np.random.default_rng(0)
  eps = jnp.asarray(rng.standard_normal((64, 16, 16, 3)))
  x_0 = jnp.full_like(eps, 0.5)
  logsnr = jnp.full(64, np.log(0.25))
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  # 49152 numbers of standard deviation 0.894: 4 standard errors.
  np.testing.assert_allclose(x_t.mean(), np.sqrt(0.2) * 0.5, atol=0.016)
  np.testing.assert_allclose(x_t.std(), np.sqrt(0.8), atol=0.012)


def test_the_posterior_is_what_bayes_rule_says():
  """Gaussian conditioning on the joint law of (x_s, x_t) given x_0 = 1."""
  logsnr_s, logsnr_t = 1.2, -0.7
  alpha_s, sigma_s = process.alpha_sigma(logsnr_s)
  alpha_t, sigma_t = process.alpha_sigma(logsnr_t)
  ratio = alpha_t / alpha_s  # x_t = ratio x_s + new noise
  covariance = ratio * sigma_s**2
  gain = covariance / sigma_t**2
  law = process.posterior(logsnr_t=logsnr_t, logsnr_s=logsnr_s)
  np.testing.assert_allclose(law.on_x_t, gain, rtol=1e-12)
  np.testing.assert_allclose(law.on_x_0, alpha_s - gain * alpha_t, rtol=1e-12)
  variance = sigma_s**2 - gain * covariance
  np.testing.assert_allclose(np.exp(law.log_variance), variance, rtol=1e-12)
  beta = sigma_t**2 - ratio**2 * sigma_s**2
  np.testing.assert_allclose(np.exp(law.log_beta), beta, rtol=1e-12)


def test_the_posterior_of_tiny_steps_keeps_its_digits():
  """To first order beta is sigma_t^2 times the change of log-SNR."""
  for logsnr in (-15.0, 0.0, 15.0, 40.0):
    change = 1e-6
    law = process.posterior(logsnr_t=logsnr, logsnr_s=logsnr + change)
    _, sigma = process.alpha_sigma(logsnr)
    np.testing.assert_allclose(
      np.exp(law.log_beta), sigma**2 * change, rtol=1e-6 + 1e-8
    )
    np.testing.assert_allclose(
      np.exp(law.log_variance - law.log_beta), 1, rtol=2e-6
    )


def test_one_step_from_x_0_the_posterior_is_x_0_itself():
  law = process.posterior(logsnr_t=0.3, logsnr_s=np.inf)
  assert (law.on_x_0, law.on_x_t, law.log_variance) == (1, 0, -np.inf)
  _, sigma = process.alpha_sigma(0.3)
  np.testing.assert_allclose(np.exp(law.log_beta), sigma**2, rtol=1e-14)


def test_tables_are_finite_for_a_chain_of_any_length():
  for logsnr in ([0.0], [3.0, -3.0], np.linspace(14, -20, 4000)):
    for table in process.posterior_tables(logsnr):
      assert table.shape == (len(logsnr),) and np.isfinite(table).all()
