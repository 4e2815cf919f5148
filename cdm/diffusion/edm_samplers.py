"""Samples images along the noise-to-signal ratio, [EDM]: Euler, Heun, DPM2.

With s = sigma / alpha = exp(-logsnr / 2), which is the sigma of [EDM], the flow
of x_t / alpha has the slope eps. A step from t to s' ends at

  Euler    alpha' x_0 + sigma' eps
  Heun     the same + alpha' (s' - s) / 2 (eps' - eps), eps' seen at that end
  DPM2     alpha' x_0 + sigma' eps_m + alpha' s (eps - eps_m), where eps_m is
           seen at the geometric mean of s and s'

With churn, fresh noise lifts a step's start to a noisier level first, [EDM]
alg. 2. The samplers are called alike, see `samplers`.
"""

import functools
from collections.abc import Callable

import jax
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

# No step may raise the noise by more than this factor, [EDM] alg. 2.
MOST_LIFT = np.sqrt(2)

Noise = Callable[[jax.Array], jax.Array]


def _table_euler(logsnrs, **churn):
  """Returns {name: [N]}, the coefficients of `euler`."""
  grid = checked(logsnrs)
  lifted, rows = _lifted(grid, **churn)
  alpha_s, sigma_s = process.alpha_sigma(grid[1:])
  return {'logsnr': lifted, 'on_x_0': alpha_s, 'on_eps': sigma_s, **rows}


@tabled(_table_euler)
def euler(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Noise | None = None,
  churn: float = 0.0,
  churn_min: float = 0.0,
  churn_max: float = np.inf,
  churn_noise: float = 1.0,
) -> jax.Array:
  """Samples by Euler steps, of first order; without churn this is DDIM.

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_T: [B, H, W, C] start, standard normal.
    logsnrs: [N + 1] increasing grid; the last may be +inf.
    noise: `j -> [B, H, W, C]`; used, and needed, only with churn > 0.
    churn: S_churn of [EDM] alg. 2; 0 is deterministic.
    churn_min, churn_max: S_min and S_max, the range of sigma / alpha in which
      noise is added.
    churn_noise: S_noise, the standard deviation of that noise.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """

  def step(x_t, c):
    prediction = denoise(x_t, per_example(c['logsnr'], x_t))
    return c['on_x_0'] * prediction.x_0 + c['on_eps'] * prediction.eps

  rows = functools.partial(coefficients, _table_euler, logsnrs)
  return _solved(
    step, rows, x_T, noise, churn, churn_min, churn_max, churn_noise
  )


def _table_heun(logsnrs, **churn):
  """Returns {name: [N]}, the coefficients of `heun`."""
  rows = _table_euler(logsnrs, **churn)
  grid, lifted = checked(logsnrs), rows['logsnr']
  again = np.isfinite(grid[1:])
  change = np.exp(-grid[1:] / 2) - np.exp(-lifted / 2)
  return rows | {
    # A step to +inf does not look again; any finite level can stand there.
    'logsnr_end': np.where(again, grid[1:], lifted),
    'on_turn': rows['on_x_0'] * change / 2,
    AGAIN: again,
  }


@tabled(_table_heun)
def heun(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Noise | None = None,
  churn: float = 0.0,
  churn_min: float = 0.0,
  churn_max: float = np.inf,
  churn_noise: float = 1.0,
) -> jax.Array:
  """Samples by Heun's steps, [EDM] alg. 1 and 2, of second order.

  Each step but one to +inf evaluates the network twice, at both its ends.

  Args:
    denoise, x_T, logsnrs, noise, churn, churn_min, churn_max, churn_noise: see
      `euler`.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """

  def step(x_t, c):
    first = denoise(x_t, per_example(c['logsnr'], x_t))
    x_s = c['on_x_0'] * first.x_0 + c['on_eps'] * first.eps

    def turned():
      last = denoise(x_s, per_example(c['logsnr_end'], x_s))
      return x_s + c['on_turn'] * (last.eps - first.eps)

    return choose(c[AGAIN] > 0, turned, lambda: x_s)

  rows = functools.partial(coefficients, _table_heun, logsnrs)
  return _solved(
    step, rows, x_T, noise, churn, churn_min, churn_max, churn_noise
  )


def _table_dpm_2(logsnrs, **churn):
  """Returns {name: [N]}, the coefficients of `dpm_2`."""
  rows = _table_euler(logsnrs, **churn)
  grid, lifted = checked(logsnrs), rows['logsnr']
  again = np.isfinite(grid[1:])
  middle = (lifted + np.where(again, grid[1:], lifted)) / 2
  alpha_m, sigma_m = process.alpha_sigma(middle)
  return rows | {
    'logsnr_middle': middle,
    'middle_on_x_0': alpha_m,
    'middle_on_eps': sigma_m,
    'on_turn': np.where(again, rows['on_x_0'] * np.exp(-lifted / 2), 0),
    AGAIN: again,
  }


@tabled(_table_dpm_2)
def dpm_2(
  denoise: Denoiser,
  x_T: jax.Array,
  *,
  logsnrs: np.ndarray | Steps,
  noise: Noise | None = None,
  churn: float = 0.0,
  churn_min: float = 0.0,
  churn_max: float = np.inf,
  churn_noise: float = 1.0,
) -> jax.Array:
  """Samples by DPM-Solver-2 along sigma / alpha, of second order.

  Each step but one to +inf evaluates the network twice, at its beginning and at
  the geometric mean of its ends ([EDM]'s comparison, k-diffusion's dpm_2).

  Args:
    denoise, x_T, logsnrs, noise, churn, churn_min, churn_max, churn_noise: see
      `euler`.

  Returns:
    [B, H, W, C] at logsnrs[-1].
  """

  def step(x_t, c):
    first = denoise(x_t, per_example(c['logsnr'], x_t))

    def in_the_middle():
      x = c['middle_on_x_0'] * first.x_0 + c['middle_on_eps'] * first.eps
      return denoise(x, per_example(c['logsnr_middle'], x)).eps

    eps = choose(c[AGAIN] > 0, in_the_middle, lambda: first.eps)
    x_s = c['on_x_0'] * first.x_0 + c['on_eps'] * eps
    return x_s + c['on_turn'] * (first.eps - eps)

  rows = functools.partial(coefficients, _table_dpm_2, logsnrs)
  return _solved(
    step, rows, x_T, noise, churn, churn_min, churn_max, churn_noise
  )


def _solved(step, rows, x_T, noise, churn, churn_min, churn_max, churn_noise):
  """Runs the steps of a sampler, each from a start that churn has lifted.

  Args:
    step: (x_t, row of coefficients) -> x at the end of the step.
    rows: (**options of churn) -> coefficients of all steps.
    x_T, noise, churn, churn_min, churn_max, churn_noise: see `euler`.
  """
  check_noise('A sampler', 'churn', churn, noise)

  def from_above(x_t, j, c):
    if churn:
      x_t = c['lift_on_x_t'] * x_t + c['lift_on_noise'] * noise(j)
    return step(x_t, c)

  options = dict(
    churn=churn,
    churn_min=churn_min,
    churn_max=churn_max,
    churn_noise=churn_noise,
  )
  return scan(from_above, x_T, rows(**options))


def _lifted(
  grid, *, churn=0.0, churn_min=0.0, churn_max=np.inf, churn_noise=1.0
):
  """Returns the levels from which steps begin, and how they are reached.

  Returns:
    (log-SNRs [N], {'lift_on_x_t', 'lift_on_noise': [N]}).
  """
  if churn < 0:
    raise ValueError(f'churn is {churn}; use 0 or more.')
  if not 0 <= churn_min <= churn_max:
    raise ValueError(
      f'churn_min is {churn_min} and churn_max is {churn_max}; use 0 <= '
      'churn_min <= churn_max.'
    )
  if churn_noise < 0:
    raise ValueError(f'churn_noise is {churn_noise}; use 0 or more, about 1.')
  ratio = np.exp(-grid[:-1] / 2)  # sigma / alpha
  inside = (ratio >= churn_min) & (ratio <= churn_max)
  most = min(churn / len(ratio), MOST_LIFT - 1)
  lift = np.where(inside, most, 0.0)  # gamma of [EDM]
  levels = grid[:-1] - 2 * np.log1p(lift)
  alpha_t, _ = process.alpha_sigma(grid[:-1])
  alpha, _ = process.alpha_sigma(levels)
  fresh = ratio * np.sqrt((1 + lift) ** 2 - 1)
  return levels, {
    'lift_on_x_t': alpha / alpha_t,
    'lift_on_noise': alpha * fresh * churn_noise,
  }
