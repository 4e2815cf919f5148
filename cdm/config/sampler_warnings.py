"""Warns of samplers that begin where they cannot work well.

Every command that draws images, or will, prints these warnings.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cdm.config import sampler_section
from cdm.config.built_stage import Stage
from cdm.diffusion import grids
from cdm.diffusion.process import alpha_sigma

# Below this alpha_bar, what is left of an image is weaker than its last bits.
_START_WITHOUT_IMAGE = 1e-3
# A network that embeds the log-SNR has learned nothing beyond its range.
_BEYOND_TRAINING = 2.0
# The standard deviation of images, as [EDM] table 1 assumes it.
_IMAGE_STD = 0.5
# Where the samplers of [EDM] begin, as sigma / alpha.
_EDM_SIGMA_MAX = 80


def of_stage(
  built: Stage,
  sampler: ConfigDict | Mapping[str, Any] | None = None,
  *,
  sampler_key: str = 'sampler',
) -> list[str]:
  """Returns a sentence or two for each setting that cannot work well.

  Args:
    built: a stage.
    sampler: a `sampler` section that replaces the one in its config, or None.
    sampler_key: dotted name of `sampler`, for the text.
  """
  found = [
    sampler_start(built, sampler, sampler_key=sampler_key),
    heun_start(built, sampler, sampler_key=sampler_key),
  ]
  return [text for text in found if text]


def sampler_start(
  built: Stage,
  sampler: ConfigDict | Mapping[str, Any] | None = None,
  *,
  sampler_key: str = 'sampler',
) -> str | None:
  """Warns if sampling does not start at the noise level that training ends at.

  Such a grid usually has fewer steps than its betas were made for. What it
  starts from is noise alone, which the network takes for an image in which
  something can be seen.

  Args:
    built: a stage.
    sampler: see `of_stage`.
    sampler_key: see `of_stage`.
  """
  if built.schedule is None:
    return None
  section = built.config.sampler if sampler is None else sampler
  key = f'{sampler_key}.grid'
  grid = sampler_section.grid(built.schedule, section['grid'], key)
  start, end = float(grid[0]), float(built.schedule.logsnr[-1])
  shown, wanted = alpha_bar(start), alpha_bar(end)
  facts = (
    f'config.{key} begins at alpha_bar {shown:.2g} with {len(grid) - 1} steps, '
    f'but training ends at {wanted:.2g}'
  )
  if shown > max(_START_WITHOUT_IMAGE, 2 * wanted):
    return (
      f'{facts}: sampling starts from noise alone, and the network looks for '
      f'an image of {np.sqrt(shown):.0%} contrast in it. '
      f'{_remedy(section["grid"], key, len(grid) - 1, wanted)}'
    )
  embeds_logsnr = built.config.model.get('condition_on') == 'logsnr'
  if embeds_logsnr and start < end - _BEYOND_TRAINING:
    return (
      f'{facts}: the network was never trained on levels between them. '
      f'{_remedy(section["grid"], key, len(grid) - 1, wanted)}'
    )
  return None


def _remedy(
  section: Mapping[str, Any], key: str, num_steps: int, wanted: float
) -> str:
  """Returns how a grid of so many steps begins where training ends."""
  if section['kind'] == 'linear':
    beta_max = _beta_max(num_steps, section['beta_min'], wanted)
    if beta_max is not None:
      return f'Set --config.{key}.beta_max={beta_max:.3g}.'
  return (
    'A grid that begins there: '
    f'--config.{key}.kind=respaced --config.{key}.spacing={num_steps}.'
  )


def _beta_max(num_steps: int, beta_min: float, wanted: float) -> float | None:
  """Returns the last beta of a linear chain that ends at an alpha_bar.

  None if no beta below 1 does.
  """

  def end(beta_max):
    betas = np.linspace(beta_min, beta_max, num_steps)
    return float(np.sum(np.log1p(-betas)))

  low, high = beta_min, 1 - 1e-6
  if num_steps < 2 or not end(high) <= np.log(wanted) <= end(low):
    return None
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (
      (middle, high) if end(middle) > np.log(wanted) else (low, middle)
    )
  return high


def heun_start(
  built: Stage,
  sampler: ConfigDict | Mapping[str, Any] | None = None,
  *,
  sampler_key: str = 'sampler',
) -> str | None:
  """Warns if the steps of Heun are so long that they throw the image far off.

  Heun's method averages the slopes at both ends of a step and multiplies them
  by its length. From where x_t is noise alone, a long step ends where the slope
  has turned, which is wrong for the most of its length.

  Args:
    built, sampler, sampler_key: see `of_stage`.
  """
  if built.schedule is None:
    return None
  section = built.config.sampler if sampler is None else sampler
  if section['kind'] != 'heun':
    return None
  key = f'{sampler_key}.grid'
  grid = sampler_section.grid(built.schedule, section['grid'], key)
  if not _is_too_far(grid):
    return None
  steps, error = len(grid) - 1, gaussian_error(grid, second_order=True)
  other = grids.rho(built.schedule, num_steps=steps, sigma_max=_EDM_SIGMA_MAX)
  remedy = 'Use more steps, or dpm_solver_pp_2m'
  if not _is_too_far(other):
    remedy = (
      f'Begin as [EDM] does: --config.{key}.kind=rho --config.{key}.num_steps='
      f'{steps} --config.{key}.sigma_max={_EDM_SIGMA_MAX}; or use '
      'dpm_solver_pp_2m'
    )
  return (
    f'config.{key} begins at sigma / alpha {np.exp(-grid[0] / 2):,.0f} and '
    f'has {steps} steps. Heun extrapolates too far along them: in images of '
    f'standard deviation {_IMAGE_STD} it leaves an error of {error:.2g}. '
    f'{remedy}.'
  )


def _is_too_far(grid):
  """Whether Heun's steps leave twice the error of as many steps of DDIM."""
  return gaussian_error(grid, second_order=True) > 2 * gaussian_error(
    grid, second_order=False
  )


def gaussian_error(grid: np.ndarray, *, second_order: bool) -> float:
  """Returns the error of x_0 that a sampler leaves where its end is known.

  Images of the law N(0, d^2), d = 0.5, have the flow sqrt(d^2 + s^2) along
  s = sigma / alpha, and the denoiser x d^2 / (d^2 + s^2).

  Args:
    grid: [N + 1] log-SNRs.
    second_order: True for Heun's steps, False for Euler's, which are DDIM's.

  Returns:
    The error of x_0, or of the noisier image that the grid ends with divided by
    alpha, after a start at x_T = 1.
  """
  s = np.exp(-np.asarray(grid) / 2)
  variance = _IMAGE_STD**2 + s**2
  x = x_T = np.hypot(1, s[0])  # a start of 1, divided by alpha
  for begin, end, var, var_end in zip(
    s, s[1:], variance, variance[1:], strict=False
  ):
    slope = x * begin / var
    reached = x + (end - begin) * slope
    if second_order and end:  # The step to x_0 evaluates the network once.
      slope = (slope + reached * end / var_end) / 2
      reached = x + (end - begin) * slope
    x = reached
  exact = x_T * np.sqrt(variance[-1] / variance[0])
  return float(abs(x - exact))


def alpha_bar(logsnr: float) -> float:
  """Returns the signal power of a log-SNR, between 0 and 1."""
  return float(alpha_sigma(float(logsnr))[0] ** 2)
