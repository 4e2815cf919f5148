"""Builds a sampler and its grid of noise levels from the `sampler` section."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cdm.config import instantiate
from cdm.diffusion import samplers, schedules
from cdm.methods import diffusion

SAMPLERS = {
  'ancestral': samplers.ancestral,
  'ddim': samplers.ddim,
  'dpm_solver_pp_2m': samplers.dpm_solver_pp_2m,
}


GRIDS = ('respaced', 'full', 'linear', 'uniform_logsnr')


def sampling(
  schedule: schedules.Schedule, section: ConfigDict | Mapping[str, Any]
) -> diffusion.Sampling:
  """Builds the sampler that a `sampler` section describes.

  Args:
    schedule: the noise schedule of training; most grids are taken from it.
    section: `kind` is one of `SAMPLERS` and `grid` is a section of its own, see
      `grid`. Keys that are fields of `methods.diffusion.Sampling` become those
      fields; the other keys are options of the sampler function.

  Raises:
    ValueError: names the key that is unknown or missing.
  """
  section = dict(section)
  kind = instantiate.kind_of('sampler', section, SAMPLERS)
  if 'grid' not in section:
    raise ValueError(f'config.sampler has no grid; give one of {GRIDS}.')
  section_grid = grid(schedule, section.pop('grid'))
  fields = diffusion.Sampling._fields
  own = {k: section.pop(k) for k in list(section) if k not in fields}
  run = SAMPLERS[kind]
  # The first two arguments are the denoiser and x_T.
  known = [p for p in inspect.signature(run).parameters][2:]
  options = [name for name in known if name not in ('logsnrs', 'noise')]
  for key in own:
    if key not in options:
      raise ValueError(
        f'config.sampler.{key} is not an option of {kind!r}; it has '
        f'{[*options, "grid", *fields[2:]]}.'
      )
  return diffusion.Sampling(
    run=functools.partial(run, **own), grid=section_grid, **section
  )


def grid(
  schedule: schedules.Schedule, section: ConfigDict | Mapping[str, Any]
) -> np.ndarray:
  """Builds the noise levels that a `sampler.grid` section describes.

  Args:
    schedule: the noise schedule of training; not used by the kind 'linear'.
    section: `kind` is one of `GRIDS`; the other keys are arguments of the
      function in `diffusion.schedules` that makes such a grid.

  Returns:
    float64 [N + 1], increasing log-SNR.

  Raises:
    ValueError: names the key that is unknown or missing.
  """
  section = dict(section)
  kind = section.pop('kind', None)
  if kind == 'respaced':
    return instantiate.splat(
      'sampler.grid', schedules.respaced, section, schedule=schedule
    )
  if kind == 'uniform_logsnr':
    return instantiate.splat(
      'sampler.grid', schedules.uniform_logsnr, section, schedule=schedule
    )
  if kind == 'full':
    return instantiate.splat(
      'sampler.grid', schedules.full_grid, section, schedule=schedule
    )
  if kind == 'linear':
    return schedules.full_grid(
      instantiate.splat('sampler.grid', schedules.linear, section)
    )
  raise ValueError(
    f'config.sampler.grid.kind is {kind!r}; known grids are {list(GRIDS)}.'
  )
