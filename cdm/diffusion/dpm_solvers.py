"""Samples images by DPM-Solver++, [DPM++]: 2M, 3M and 2S.

With lambda = log(alpha / sigma) = logsnr / 2 and a step h = lambda_s - lambda_t
from t to s, all integrate the prediction of x_0 exactly but for its change:

  x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^-h) (x_0 + its change)

The samplers are called alike, see `samplers`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import process
from cdm.diffusion.parameterization import Denoiser
from cdm.diffusion.sampler_steps import (
  AGAIN,
  Steps,
  check_noise,
  checked,
  choose,
  coefficients,
  per_example,
  scan,
  tabled,
)


def _table_2m(logsnrs, *, last_order=2, eta=0.0):
  """Returns {name: [N]}, the coefficients of `dpm_solver_pp_2m`."""
  if last_order not in (1, 2):
    raise ValueError(f'last_order is {last_order}; use 1 or 2.')
  if eta < 0:
    raise ValueError(f'eta is {eta}; use 0 or more.')
  grid = checked(logsnrs)
  h = np.diff(grid) / 2
  kept, on_x_0, fresh = _with_noise(grid, h, eta)
  on_change = np.zeros(len(h))
  on_change[1:] = h[1:] / (2 * h[:-1])  # 1 / (2 r)
  if np.isinf(h[-1]) or last_order == 1:
    on_change[-1] = 0.0
  return dict(
    logsnr=grid[:-1],
    on_x_t=kept,
    on_x_0=on_x_0,
    on_change=on_change,
    on_noise=fresh,
  )


@tabled(_table_2m)
def dpm_solver_pp_2m(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Callable[[jax.Array], jax.Array] | None = None,
  last_order: int = 2,
  eta: float = 0.0,
) -> jax.Array:
  """Samples by DPM-Solver++(2M), [DPM++] alg. 2, of second order.

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_T: [B, H, W, C] start, standard normal.
    logsnrs: [N + 1] increasing grid; the last may be +inf.
    noise: `j -> [B, H, W, C]`; used, and needed, only with eta > 0.
    last_order: 1 or 2, order of the last step if it ends at a finite level;
      with few steps 1 is more stable ([DPM++] code). The first step and a step
      to +inf are always of first order.
    eta: 0 is deterministic; 1 is SDE-DPM-Solver++(2M), whose noise is that of
      the posterior. In between the noise of a step grows with eta.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """
  check_noise('dpm_solver_pp_2m', 'eta', eta, noise)
  rows = coefficients(_table_2m, logsnrs, last_order=last_order, eta=eta)

  def step(carry, j, c):
    x_t, previous = carry
    x_0 = denoise(x_t, per_example(c['logsnr'], x_t)).x_0
    ahead = x_0 + c['on_change'] * (x_0 - previous)
    x_s = c['on_x_t'] * x_t + c['on_x_0'] * ahead
    if eta and noise is not None:
      x_s += c['on_noise'] * noise(j)
    return x_s, x_0

  x_s, _ = scan(step, (x_T, jnp.zeros_like(x_T)), rows)
  return x_s


def _table_3m(logsnrs, *, last_order=3):
  """Returns {name: [N]}, the coefficients of `dpm_solver_pp_3m`.

  Let m_k be the prediction of k steps ago and r_k = h_k / h the ratio of steps.
  The parabola through the last three has, in units of the step, the slope and
  the curvature

    D + r_0 (D - E) / (r_0 + r_1)    and    2 (D - E) / (r_0 + r_1)
    D = (m_0 - m_1) / r_0,  E = (m_1 - m_2) / r_1

  (The public code takes half of this curvature, which is of second order.)
  """
  if last_order not in (1, 2, 3):
    raise ValueError(f'last_order is {last_order}; use 1, 2 or 3.')
  grid = checked(logsnrs)
  h = np.diff(grid) / 2
  n = len(h)
  kept, on_x_0, _ = _with_noise(grid, h, 0.0)
  alpha_s, _ = process.alpha_sigma(grid[1:])
  order = np.minimum(np.arange(1, n + 1), 3)
  order = np.minimum(order, last_order + np.arange(n)[::-1])
  order[-1] = 1 if np.isinf(h[-1]) else order[-1]
  newer, older = np.zeros(n), np.zeros(n)
  for i in range(1, n):
    r_0 = h[i - 1] / h[i]
    if order[i] == 2:
      newer[i] = 0.5 * on_x_0[i] / r_0
    elif order[i] == 3:
      r_1 = h[i - 2] / h[i]
      phi_2 = np.expm1(-h[i]) / h[i] + 1
      phi_3 = phi_2 / h[i] - 0.5
      curved = (phi_2 * r_0 - 2 * phi_3) / (r_0 + r_1)
      newer[i] = alpha_s[i] * (phi_2 + curved) / r_0
      older[i] = -alpha_s[i] * curved / r_1
  return dict(
    logsnr=grid[:-1], on_x_t=kept, on_x_0=on_x_0, on_newer=newer, on_older=older
  )


@tabled(_table_3m)
def dpm_solver_pp_3m(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Callable[[jax.Array], jax.Array] | None = None,
  last_order: int = 3,
) -> jax.Array:
  """Samples by DPM-Solver++(3M), [DPM++] sec. 4, deterministic, third order.

  The first step is of first order, the second of second. With fewer than about
  20 steps `dpm_solver_pp_2m` is the better one.

  Args:
    denoise, x_T, logsnrs: see `dpm_solver_pp_2m`.
    noise: unused; accepted so that all samplers are called alike.
    last_order: 1, 2 or 3, order of the last step if it ends at a finite level;
      the step before it is of one order more, at most. A step to +inf is always
      of first order.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """
  del noise
  rows = coefficients(_table_3m, logsnrs, last_order=last_order)

  def step(carry, j, c):
    del j
    x_t, m_1, m_2 = carry
    m_0 = denoise(x_t, per_example(c['logsnr'], x_t)).x_0
    x_s = c['on_x_t'] * x_t + c['on_x_0'] * m_0
    x_s += c['on_newer'] * (m_0 - m_1) + c['on_older'] * (m_1 - m_2)
    return x_s, m_0, m_1

  zeros = jnp.zeros_like(x_T)
  x_s, _, _ = scan(step, (x_T, zeros, zeros), rows)
  return x_s


def _table_2s(logsnrs):
  """Returns {name: [N]}, the coefficients of `dpm_solver_pp_2s`."""
  grid = checked(logsnrs)
  h = np.diff(grid) / 2
  again = np.isfinite(h)
  # A step to +inf has no middle; its first half is not used.
  middle = grid[:-1] + np.where(again, h, 0)
  _, sigma_t = process.alpha_sigma(grid[:-1])
  alpha_m, sigma_m = process.alpha_sigma(middle)
  kept, on_x_0, _ = _with_noise(grid, h, 0.0)
  return {
    'logsnr': grid[:-1],
    'logsnr_middle': middle,
    'middle_on_x_t': sigma_m / sigma_t,
    'middle_on_x_0': -alpha_m * np.expm1((grid[:-1] - middle) / 2),
    'on_x_t': kept,
    'on_x_0': on_x_0,
    AGAIN: again,
  }


@tabled(_table_2s)
def dpm_solver_pp_2s(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
  """Samples by DPM-Solver++(2S), [DPM++] alg. 1, deterministic, second order.

  Each step but one to +inf evaluates the network twice, at its beginning and in
  the middle of its log-SNR.

  Args:
    denoise, x_T, logsnrs: see `dpm_solver_pp_2m`.
    noise: unused; accepted so that all samplers are called alike.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """
  del noise
  rows = coefficients(_table_2s, logsnrs)

  def step(x_t, j, c):
    del j
    x_0 = denoise(x_t, per_example(c['logsnr'], x_t)).x_0

    def in_the_middle():
      x = c['middle_on_x_t'] * x_t + c['middle_on_x_0'] * x_0
      return denoise(x, per_example(c['logsnr_middle'], x)).x_0

    x_0 = choose(c[AGAIN] > 0, in_the_middle, lambda: x_0)
    return c['on_x_t'] * x_t + c['on_x_0'] * x_0

  return scan(step, x_T, rows)


def _with_noise(grid, h, eta):
  """Returns the factors of x_t, of x_0 and of the fresh noise of every step."""
  _, sigma_t = process.alpha_sigma(grid[:-1])
  alpha_s, sigma_s = process.alpha_sigma(grid[1:])
  # At +inf sigma_s is zero, whatever multiplies it.
  faded = eta * np.where(np.isfinite(h), h, 0)
  kept = sigma_s / sigma_t * np.exp(-faded)
  on_x_0 = -alpha_s * np.expm1(-h - faded)
  return kept, on_x_0, sigma_s * np.sqrt(-np.expm1(-2 * faded))
