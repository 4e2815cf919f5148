"""Writes how a stage draws as a scheduler_config.json of diffusers.

It is the way back of `diffusers_scheduler`. A sampler without a counterpart
becomes the DDPM scheduler with all steps, and that is said.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cdm.config import diffusers_scheduler

_STEPS = {'linear': 'linear', 'cosine': 'squaredcos_cap_v2'}
# Of the library's cosine schedule.
_COSINE = {'offset': 0.008, 'max_beta': 0.999}
_VARIANCES = {
  'posterior': 'fixed_small',
  'beta': 'fixed_large',
  'learned': 'learned_range',
}
_PREDICTIONS = {ours: t for t, ours in diffusers_scheduler.PREDICTIONS.items()}


class Written(NamedTuple):
  """A scheduler of the library.

  Attributes:
    config: the object of its scheduler_config.json.
    notes: what of the sampler it does not say, sentences.
  """

  config: dict[str, Any]
  notes: tuple[str, ...] = ()


def of_config(c: ConfigDict) -> Written:
  """Returns the scheduler of a diffusion model.

  Args:
    c: config of the stage.

  Raises:
    ValueError: names the section that the library cannot follow.
  """
  if c.method.get('residual_scale') is not None:
    raise ValueError(
      f'config.method.residual_scale is {c.method.residual_scale}: the network '
      'draws a residual, which a scheduler of diffusers would take for the '
      'image.'
    )
  prediction = c.method.get('prediction')
  if not isinstance(prediction, str) or prediction not in _PREDICTIONS:
    raise ValueError(
      f'config.method.prediction is {str(prediction)!r:.60}; a scheduler of '
      f'diffusers can follow {", ".join(map(repr, _PREDICTIONS))}.'
    )
  known = {
    **_schedule(c),
    'prediction_type': _PREDICTIONS[prediction],
    'clip_sample': c.sampler.get('clip') != 'none',
  }
  return _sampler(c, known)


def _schedule(c):
  """Returns the keys of the noise schedule."""
  section = dict(c.schedule)
  kind, steps = section.get('kind'), section.get('num_steps')
  if kind not in _STEPS or not steps:
    raise ValueError(
      f'config.schedule.kind is {kind!r}; a scheduler of diffusers can follow '
      f'{", ".join(map(repr, _STEPS))}, in steps.'
    )
  found = {'num_train_timesteps': steps, 'beta_schedule': _STEPS[kind]}
  if kind == 'linear':
    ends = {'beta_start': section['beta_min'], 'beta_end': section['beta_max']}
    return found | ends
  for key, value in _COSINE.items():
    if section.get(key, value) != value:
      raise ValueError(
        f'config.schedule.{key} is {section[key]}; the cosine schedule of '
        f'diffusers has {value}.'
      )
  return found


def _sampler(c, known):
  """Returns the scheduler whose steps are those of the sampler."""
  sampler, notes = dict(c.sampler), []
  kind, grid = sampler['kind'], dict(sampler.get('grid') or {})
  if sampler.get('guidance_weight'):
    notes.append('Guidance has no place in a scheduler.')
  if sampler.get('clip') == 'dynamic':
    notes.append('Dynamic thresholds become clipping to [-1, 1].')
  trailing = grid.get('kind') == 'trailing'
  if kind == 'ddim' and not sampler.get('eta'):
    spacing = 'trailing' if trailing else 'leading'
    return Written(
      {
        '_class_name': 'DDIMScheduler',
        **known,
        'set_alpha_to_one': True,
        'steps_offset': 0,
        'timestep_spacing': spacing,
      },
      tuple(notes),
    )
  variance = _VARIANCES.get(sampler.get('variance'), 'fixed_small')
  if kind != 'ancestral':
    notes.append(
      f'The sampler {kind!r} becomes the DDPM scheduler with all steps.'
    )
  elif grid.get('kind') != 'full':
    notes.append('The DDPM scheduler has all steps, unless it is told fewer.')
  return Written(
    {'_class_name': 'DDPMScheduler', **known, 'variance_type': variance},
    tuple(notes),
  )
