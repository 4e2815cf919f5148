"""Samples images along the chain of noise levels: ancestral and DDIM.

  (denoise, x_T, *, logsnrs, noise) -> x at logsnrs[-1]

All samplers have this signature; those of higher order are in `dpm_solvers` and
`edm_samplers`. `logsnrs` is a concrete increasing grid (see `schedules`). If
its last entry is +inf, the result is x_0; if it is finite, the result is a
sample at that noise level, noise included (truncated sampling). Coefficients
are computed on the host in float64, one row per step, and cast to the dtype of
x_T; the loop is a lax.scan. In the place of a grid, `logsnrs` may be the
`Steps` of one: arrays that a compiled program takes as arguments, so that it
runs any grid.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import process
from cdm.diffusion.parameterization import Denoiser, learned_log_variance
from cdm.diffusion.sampler_steps import (
  Steps,
  check_noise,
  checked,
  coefficients,
  per_example,
  scan,
  tabled,
)

VARIANCES = ('beta', 'posterior', 'learned')


def _ancestral_table(logsnrs, *, variance='beta'):
  """Returns {name: [N]}, the coefficients of `ancestral`."""
  if variance not in VARIANCES:
    raise ValueError(
      f'variance is {variance!r}; known variances are {VARIANCES}.'
    )
  grid = checked(logsnrs)
  law = process.posterior(logsnr_t=grid[:-1], logsnr_s=grid[1:])
  noisy = np.isfinite(grid[1:])
  # Where no noise is added, any finite value can stand for -inf.
  log_posterior = np.where(noisy, law.log_variance, law.log_beta)
  return dict(
    logsnr=grid[:-1],
    on_x_0=law.on_x_0,
    on_x_t=law.on_x_t,
    noisy=noisy,
    log_beta=law.log_beta,
    log_posterior=log_posterior,
  )


@tabled(_ancestral_table)
def ancestral(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Callable[[jax.Array], jax.Array],
  variance: str = 'beta',
) -> jax.Array:
  """Samples the reverse Markov chain, [DDPM] alg. 2, [SR3] alg. 2.

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_T: [B, H, W, C] start, standard normal.
    logsnrs: [N + 1] increasing grid; the last may be +inf.
    noise: `j -> [B, H, W, C]`, the standard normal noise of step j = 0..N-1.
    variance: 'beta' is the variance of q(x_t | x_s) ([SR3]), 'posterior' that
      of q(x_s | x_t, x_0), and 'learned' is in between ([IDDPM] eq. 15). A step
      to +inf adds no noise.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """
  rows = coefficients(_ancestral_table, logsnrs, variance=variance)

  def step(x_t, j, c):
    prediction = denoise(x_t, per_example(c['logsnr'], x_t))
    if variance == 'learned':
      log_variance = _learned(prediction, c['log_beta'], c['log_posterior'])
    else:
      log_variance = c['log_' + variance]
    mean = c['on_x_0'] * prediction.x_0 + c['on_x_t'] * x_t
    return mean + c['noisy'] * jnp.exp(0.5 * log_variance) * noise(j)

  return scan(step, x_T, rows)


def _ddim_table(logsnrs, *, eta=0.0):
  """Returns {name: [N]}, the coefficients of `ddim`."""
  grid = checked(logsnrs)
  if eta < 0:
    raise ValueError(f'eta is {eta}; use 0 or more.')
  alpha_s, sigma_s = process.alpha_sigma(grid[1:])
  fresh = -np.expm1(grid[:-1] - grid[1:])  # posterior variance / sigma_s^2
  kept = np.where(sigma_s > 0, 1 - eta**2 * fresh, 0)
  if kept.min() < 0:
    raise ValueError(
      f'eta is {eta}; on this grid it can be at most '
      f'{fresh[sigma_s > 0].max() ** -0.5:.4g}, or a step would add more noise '
      'than its level holds.'
    )
  return dict(
    logsnr=grid[:-1],
    on_x_0=alpha_s,
    on_eps=sigma_s * np.sqrt(kept),
    on_noise=sigma_s * eta * np.sqrt(fresh),
  )


@tabled(_ddim_table)
def ddim(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Callable[[jax.Array], jax.Array] | None = None,
  eta: float = 0.0,
) -> jax.Array:
  """Samples by DDIM, [DDIM] eq. 12 and 16, of first order with eta = 0.

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_T: [B, H, W, C] start, standard normal.
    logsnrs: [N + 1] increasing grid; the last may be +inf.
    noise: `j -> [B, H, W, C]`; used, and needed, only with eta > 0.
    eta: 0 is deterministic, 1 has the posterior variance of the chain.

  Returns:
    [B, H, W, C] at logsnrs[-1].

  Raises:
    ValueError: eta > 0 without noise, or so large that some step would add
      more noise than its level holds.
  """
  check_noise('ddim', 'eta', eta, noise)
  rows = coefficients(_ddim_table, logsnrs, eta=eta)

  def step(x_t, j, c):
    prediction = denoise(x_t, per_example(c['logsnr'], x_t))
    x_s = c['on_x_0'] * prediction.x_0 + c['on_eps'] * prediction.eps
    if not eta or noise is None:
      return x_s
    return x_s + c['on_noise'] * noise(j)

  return scan(step, x_T, rows)


def _learned(prediction, log_beta, log_posterior):
  if prediction.var is None:
    raise ValueError(
      "variance is 'learned' but the denoiser predicts none; use 'beta' or "
      "'posterior', or a network with learned variance."
    )
  return learned_log_variance(
    prediction.var, log_beta=log_beta, log_variance=log_posterior
  )
