"""Samples images with a denoiser: ancestral, DDIM and DPM-Solver++(2M).

  (denoise, x_T, *, logsnrs, noise) -> x at logsnrs[-1]

All samplers have this signature. `logsnrs` is a concrete increasing grid (see
`schedules`). If its last entry is +inf, the result is x_0; if it is finite, the
result is a sample at that noise level, noise included (truncated sampling).
Coefficients are computed on the host in float64, one row per step, and cast to
the dtype of x_T; the loop is a lax.scan. In the place of a grid, `logsnrs` may
be the `Steps` of one: arrays that a compiled program takes as arguments, so
that it runs any grid.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import process
from cdm.diffusion.parameterization import Denoiser, learned_log_variance

VARIANCES = ('beta', 'posterior', 'learned')
# Rows of `Steps` are filled up to a multiple of this, so that most grids make
# arrays of one shape.
STEPS_UNIT = 256


class Steps(NamedTuple):
  """The coefficients of a sampler on one grid, as arrays.

  Attributes:
    rows: {name: float32 [M]}, one entry per step; those from `count` on are not
      used.
    count: int32 [], the number of steps.
  """

  rows: dict[str, np.ndarray | jax.Array]
  count: np.ndarray | jax.Array


def steps(
  run: Callable[..., jax.Array] | functools.partial[jax.Array],
  logsnrs: np.ndarray,
) -> Steps:
  """Returns the `Steps` of a grid, for a sampler to take as `logsnrs`.

  Args:
    run: a sampler of this module, or a functools.partial with its options.
    logsnrs: the grid, see the samplers.

  Raises:
    ValueError: an error of the sampler about the grid or its options.
  """
  options = {}
  if isinstance(run, functools.partial):
    run, options = run.func, run.keywords
  rows = _TABLES[run](logsnrs, **options)
  count = len(rows['logsnr'])
  unused = -count % STEPS_UNIT
  filled = {k: np.pad(v, (0, unused)) for k, v in rows.items()}
  return Steps(
    {k: v.astype(np.float32) for k, v in filled.items()},
    np.asarray(count, np.int32),
  )


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
  coefficients = _coefficients(_ancestral_table, logsnrs, variance=variance)

  def step(x_t, j, c):
    prediction = denoise(x_t, _per_example(c['logsnr'], x_t))
    if variance == 'learned':
      log_variance = _learned(prediction, c['log_beta'], c['log_posterior'])
    else:
      log_variance = c['log_' + variance]
    mean = c['on_x_0'] * prediction.x_0 + c['on_x_t'] * x_t
    return mean + c['noisy'] * jnp.exp(0.5 * log_variance) * noise(j)

  return _scan(step, x_T, coefficients)


def _ancestral_table(logsnrs, *, variance='beta'):
  """Returns {name: [N]}, the coefficients of `ancestral`."""
  if variance not in VARIANCES:
    raise ValueError(
      f'variance is {variance!r}; known variances are {VARIANCES}.'
    )
  grid = _checked(logsnrs)
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
  if eta and noise is None:
    raise ValueError(f'ddim with eta = {eta} needs noise; give it, or eta=0.')
  coefficients = _coefficients(_ddim_table, logsnrs, eta=eta)

  def step(x_t, j, c):
    prediction = denoise(x_t, _per_example(c['logsnr'], x_t))
    x_s = c['on_x_0'] * prediction.x_0 + c['on_eps'] * prediction.eps
    if not eta or noise is None:
      return x_s
    return x_s + c['on_noise'] * noise(j)

  return _scan(step, x_T, coefficients)


def _ddim_table(logsnrs, *, eta=0.0):
  """Returns {name: [N]}, the coefficients of `ddim`."""
  grid = _checked(logsnrs)
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


def dpm_solver_pp_2m(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Callable[[jax.Array], jax.Array] | None = None,
  last_order: int = 2,
) -> jax.Array:
  """Samples by DPM-Solver++(2M), [DPM++] alg. 2, deterministic, second order.

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_T: [B, H, W, C] start, standard normal.
    logsnrs: [N + 1] increasing grid; the last may be +inf.
    noise: unused, because the solver is deterministic; accepted so that all
      samplers are called alike.
    last_order: 1 or 2, order of the last step if it ends at a finite level;
      with few steps 1 is more stable ([DPM++] code). The first step and a step
      to +inf are always of first order.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """
  del noise
  coefficients = _coefficients(
    _dpm_solver_table, logsnrs, last_order=last_order
  )

  def step(carry, j, c):
    x_t, previous = carry
    x_0 = denoise(x_t, _per_example(c['logsnr'], x_t)).x_0
    ahead = x_0 + c['on_change'] * (x_0 - previous)
    return c['on_x_t'] * x_t + c['on_x_0'] * ahead, x_0

  x_s, _ = _scan(step, (x_T, jnp.zeros_like(x_T)), coefficients)
  return x_s


def _dpm_solver_table(logsnrs, *, last_order=2):
  """Returns {name: [N]}, the coefficients of `dpm_solver_pp_2m`."""
  if last_order not in (1, 2):
    raise ValueError(f'last_order is {last_order}; use 1 or 2.')
  grid = _checked(logsnrs)
  _, sigma_t = process.alpha_sigma(grid[:-1])
  alpha_s, sigma_s = process.alpha_sigma(grid[1:])
  h = np.diff(grid) / 2  # steps in the paper's lambda = log(alpha / sigma)
  on_change = np.zeros(len(h))
  on_change[1:] = h[1:] / (2 * h[:-1])  # 1 / (2 r)
  if np.isinf(h[-1]) or last_order == 1:
    on_change[-1] = 0.0
  return dict(
    logsnr=grid[:-1],
    on_x_t=sigma_s / sigma_t,
    on_x_0=-alpha_s * np.expm1(-h),
    on_change=on_change,
  )


_TABLES: dict[Any, Callable[..., dict[str, np.ndarray]]] = {
  ancestral: _ancestral_table,
  ddim: _ddim_table,
  dpm_solver_pp_2m: _dpm_solver_table,
}


def _coefficients(table, logsnrs, **options):
  """Returns the coefficients of a grid, which may be `Steps` already."""
  if isinstance(logsnrs, Steps):
    return logsnrs
  return table(logsnrs, **options)


def _checked(logsnrs):
  """Returns the grid in float64; raises ValueError unless it increases."""
  grid = np.asarray(logsnrs, np.float64)
  if grid.ndim != 1 or len(grid) < 2:
    raise ValueError(
      f'logsnrs has shape {grid.shape}; give [N + 1] levels, N >= 1.'
    )
  if not (np.isfinite(grid[:-1]).all() and (np.diff(grid) > 0).all()):
    raise ValueError(
      'logsnrs must be finite and strictly increasing, except that the last '
      f'may be +inf; they run from {grid[0]} to {grid[-1]}.'
    )
  return grid


def _per_example(logsnr, x_t):
  return jnp.broadcast_to(logsnr, x_t.shape[:1])  # [B]


def _learned(prediction, log_beta, log_posterior):
  if prediction.var is None:
    raise ValueError(
      "variance is 'learned' but the denoiser predicts none; use 'beta' or "
      "'posterior', or a network with learned variance."
    )
  return learned_log_variance(
    prediction.var, log_beta=log_beta, log_variance=log_posterior
  )


def _scan(step, carry, coefficients):
  """Runs step(carry, j, row j of coefficients) -> carry over all rows.

  Args:
    step: the function.
    carry: its first argument at the start.
    coefficients: {name: [N]}, or `Steps`.
  """
  dtype = jax.tree.leaves(carry)[0].dtype
  if isinstance(coefficients, Steps):
    rows = {k: jnp.asarray(v, dtype) for k, v in coefficients.rows.items()}
    return jax.lax.fori_loop(
      0,
      coefficients.count,
      lambda j, carry: step(carry, j, {k: v[j] for k, v in rows.items()}),
      carry,
    )
  rows = {k: jnp.asarray(v, dtype) for k, v in coefficients.items()}
  num_steps = len(rows['logsnr'])

  def body(carry, row):
    j, c = row
    return step(carry, j, c), None

  j = jnp.arange(num_steps, dtype=jnp.int32)
  carry, _ = jax.lax.scan(body, carry, (j, rows))
  return carry
