"""Builds a sampler and its grid of noise levels from the `sampler` section."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from cdm.config import instantiate, key_errors, value_types
from cdm.diffusion import dpm_solvers, edm_samplers, grids, samplers, schedules
from cdm.diffusion.parameterization import Prediction
from cdm.methods import diffusion

SAMPLERS = {
  'ancestral': samplers.ancestral,
  'ddim': samplers.ddim,
  'dpm_solver_pp_2m': dpm_solvers.dpm_solver_pp_2m,
  'dpm_solver_pp_3m': dpm_solvers.dpm_solver_pp_3m,
  'dpm_solver_pp_2s': dpm_solvers.dpm_solver_pp_2s,
  'euler': edm_samplers.euler,
  'heun': edm_samplers.heun,
  'dpm_2': edm_samplers.dpm_2,
}


class Chosen(NamedTuple):
  """The sampler that a stage is to draw with.

  Attributes:
    section: a `sampler` section that replaces `c.sampler`, or None.
    key: dotted name of `section`, for error messages.
    steps: number of steps, spread over the sampler's own grid; None takes all.
  """

  section: ConfigDict | Mapping[str, Any] | None
  key: str
  steps: int | None


GRIDS = {
  'respaced': grids.respaced,
  'full': grids.full_grid,
  'linear': schedules.linear,
  'uniform_logsnr': grids.uniform_logsnr,
  'uniform_t': grids.uniform_t,
  'trailing': grids.trailing,
  'rho': grids.rho,
  'levels': grids.levels,
}


def sampling(
  schedule: schedules.Schedule,
  section: ConfigDict | Mapping[str, Any],
  name: str = 'sampler',
  *,
  num_steps: int | None = None,
) -> diffusion.Sampling:
  """Builds the sampler that a `sampler` section describes.

  Args:
    schedule: the noise schedule of training; most grids are taken from it.
    section: `kind` is one of `SAMPLERS` and `grid` is a section of its own, see
      `grid`. Keys that are fields of `methods.diffusion.Sampling` become those
      fields; the other keys are options of the sampler function.
    name: dotted name of the section, for error messages.
    num_steps: number of steps, spread over the grid of the section, of which
      there are at least as many; None takes all.

  Raises:
    ValueError: names the key that is unknown or missing.
  """
  section = instantiate.as_dict(name, section)
  kind = instantiate.kind_of(name, section, SAMPLERS)
  if 'grid' not in section:
    raise ValueError(
      f'config.{name}.grid is missing; give --config.{name}.grid.kind=KIND, '
      f'where KIND is one of {", ".join(GRIDS)}, and its keys.'
    )
  levels = grid(schedule, section.pop('grid'), f'{name}.grid')
  if num_steps is not None:
    levels = grids.shorten(levels, num_steps=num_steps)
  fields = diffusion.Sampling._fields[2:]  # those that a config may set
  own = {k: section.pop(k) for k in list(section) if k not in fields}
  run = SAMPLERS[kind]
  # The first two arguments are the denoiser and x_T.
  known = [p for p in inspect.signature(run).parameters][2:]
  options = [key for key in known if key not in ('logsnrs', 'noise')]
  for key in own:
    if key not in options:
      raise ValueError(
        f'config.{name}.{key} is not an option of {kind!r}, which has '
        f'{[*options, "grid", *fields]}. Set one of them with '
        f'--config.{name}.KEY=VALUE.'
      )
  value_types.check_arguments(name, run, own)
  value_types.check_arguments(name, diffusion.Sampling, section)
  return diffusion.Sampling(
    run=functools.partial(run, **own), grid=levels, **section
  )


def check_steps(
  key: str,
  steps: int | None,
  schedule: schedules.Schedule | None,
  c: ConfigDict,
) -> int | None:
  """Returns how many steps a sampler has, and checks that fewer can be taken.

  Args:
    key: dotted name of the key that asks for fewer steps.
    steps: how many it asks for; None asks for all.
    schedule: see `sampling`; None if the method of the stage has no sampler.
    c: config of the stage.

  Returns:
    The number, None if there is no sampler.

  Raises:
    ValueError: the sampler does not have so many steps, or there is none.
  """
  if schedule is None:
    if steps is not None:
      raise ValueError(
        f'config.{key} is {steps!r}, but method.kind={c.method.kind!r} has no '
        f'sampler whose steps could be fewer. Set it with --config.{key}=None.'
      )
    return None
  most = len(grid(schedule, c.sampler['grid'])) - 1
  if steps is not None and not 1 <= steps <= most:
    raise ValueError(
      f'config.{key} is {steps!r}; it must be None, or from 1 to {most}, the '
      f'steps of config.sampler.grid. Set it with --config.{key}=None.'
    )
  return most


def try_out(
  built: diffusion.Sampling, name: str, *, learned_variance: bool
) -> None:
  """Traces a sampler with a network of one pixel, which takes milliseconds.

  A sampler checks its options, some of them against its grid, when it is
  traced. Without this, that would be after the real network was traced.

  Args:
    built: what `sampling` returned.
    name: dotted name of the section, for error messages.
    learned_variance: whether the network predicts variances.

  Raises:
    ValueError: names the option that cannot be used.
  """

  def denoise(x_t, logsnr):
    del logsnr
    return Prediction(x_t, x_t, x_t if learned_variance else None)

  x_T = jax.ShapeDtypeStruct((1, 1, 1, 1), np.float32)
  options = inspect.signature(built.run).parameters
  with key_errors.naming(name, options, otherwise=f'{name}.grid'):
    jax.eval_shape(
      lambda x: built.run(denoise, x, logsnrs=built.grid, noise=lambda j: x),
      x_T,
    )


def grid(
  schedule: schedules.Schedule,
  section: ConfigDict | Mapping[str, Any],
  name: str = 'sampler.grid',
) -> np.ndarray:
  """Builds the noise levels that a `sampler.grid` section describes.

  Args:
    schedule: the noise schedule of training; not used by the kinds 'linear' and
      'levels'.
    section: `kind` is one of `GRIDS`; the other keys are arguments of the
      function that makes such a grid.
    name: dotted name of the section, for error messages.

  Returns:
    float64 [N + 1], increasing log-SNR.

  Raises:
    ValueError: names the key that is unknown or missing.
  """
  section = instantiate.as_dict(name, section)
  kind = instantiate.kind_of(name, section, GRIDS)
  if kind == 'linear':
    made = instantiate.splat(name, schedules.linear, section)
    return grids.full_grid(made)
  if kind == 'levels':
    return instantiate.splat(name, grids.levels, section)
  return instantiate.splat(name, GRIDS[kind], section, schedule=schedule)
