"""Checks a network that is trained to draw in few steps.

Such a network learns steps of its own, and only these: it has to be drawn with
them, and to predict something at a level that has no signal.
"""

import functools

import numpy as np

from cdm.diffusion import distillation, samplers
from cdm.diffusion.preconditioning import Edm
from cdm.methods.diffusion_options import Objective, Sampling


def check_objective(objective: Objective, kind: str) -> None:
  """Raises ValueError, naming the key, if a student cannot be scored so.

  Args:
    objective: how the network is scored.
    kind: of its method.
  """
  if objective.prediction == 'eps':
    raise ValueError(
      f"method.prediction is 'eps', but method.kind={kind!r} needs a network "
      'that predicts x_0 or v: where there is no signal in x_t, as at the '
      'first step of few, its noise says nothing about the image ([PD] sec. '
      '4). Use --config.method.prediction=v, of a teacher too.'
    )
  if objective.uncertainty is not None:
    raise ValueError(
      "method.weighting is 'uncertainty', a weight for each noise level, but "
      f'method.kind={kind!r} learns at a few levels only; use '
      '--config.method.weighting=truncated_snr, or none.'
    )


def target_of(objective: Objective) -> str:
  """Returns the quantity on which the student of a teacher is scored.

  Args:
    objective: how the student is scored.

  Raises:
    ValueError: it is none of `distillation.TARGETS`; names the key.
  """
  target = objective.target or objective.prediction
  if isinstance(target, Edm):
    raise ValueError(
      'method.target is None, which scores a student on what it predicts, but '
      "there is no such score for method.prediction 'edm'; use "
      '--config.method.target=v, or x_0.'
    )
  if target not in distillation.TARGETS:
    raise ValueError(
      f"method.target is {target!r}; a student is scored on 'x_0' or 'v', or "
      'with None on what it predicts.'
    )
  return target


def check_sampler(sampling: Sampling, grid: np.ndarray) -> None:
  """Raises ValueError unless a student is drawn in the steps that it learns.

  Args:
    sampling: the sampler of its config.
    grid: float64 [N + 1], the levels of these steps.
  """
  run, options = sampling.run, {}
  if isinstance(run, functools.partial):
    run, options = run.func, run.keywords
  is_ddim = run is samplers.ddim and not options.get('eta')
  if is_ddim and np.array_equal(sampling.grid, grid):
    return
  n = len(grid) - 1
  raise ValueError(
    f'config.sampler takes other steps than the {n} that the network learns. '
    'Set --config.sampler.kind=ddim --config.sampler.eta=0.0 '
    f'--config.sampler.grid.kind=trailing --config.sampler.grid.num_steps={n}.'
  )
