"""Reads how a folder of diffusers draws images: its scheduler_config.json.

What our schedules and samplers cannot follow is refused by the key that asks
for it. Left out there, a key has the library's default.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Our name of the variance of a step.
_VARIANCES = {
  'fixed_small': 'posterior',
  'fixed_small_log': 'posterior',
  'fixed_large': 'beta',
  'fixed_large_log': 'beta',
  'learned_range': 'learned',
}
PREDICTIONS = {'epsilon': 'eps', 'v_prediction': 'v', 'sample': 'x_0'}
# Keys that must have this value: (value, what stands for its absence).
_FIXED = {
  'trained_betas': (None, None),
  'thresholding': (False, False),
  'rescale_betas_zero_snr': (False, False),
  'steps_offset': (0, 0),
  'clip_sample_range': (1.0, 1.0),
}
_DDIM_STEPS = 50  # of the library's DDIMPipeline


class Scheduler(NamedTuple):
  """Sections of a config.

  Attributes:
    schedule: the section `schedule`.
    sampler: the keys of `sampler` that follow from the file.
    prediction: the key `method.prediction`.
  """

  schedule: dict[str, Any]
  sampler: dict[str, Any]
  prediction: str


def read(c: Mapping[str, Any]) -> Scheduler:
  """Reads a scheduler of the library, DDPMScheduler or DDIMScheduler.

  Args:
    c: the object in scheduler_config.json.

  Raises:
    ValueError: names the key that cannot be followed.
  """
  kind = _one_of(c, '_class_name', 'DDPMScheduler', _SAMPLERS)
  for key, (value, default) in _FIXED.items():
    if c.get(key, default) != value:
      raise ValueError(
        f'{key} is {c[key]!r:.60}; only {value} can be followed.'
      )
  prediction = _one_of(c, 'prediction_type', 'epsilon', PREDICTIONS)
  sampler = _SAMPLERS[kind](c)
  sampler['clip'] = _clip(c, kind)
  return Scheduler(_schedule(c), sampler, PREDICTIONS[prediction])


def _schedule(c: Mapping[str, Any]) -> dict[str, Any]:
  known = ('linear', 'squaredcos_cap_v2')
  steps = c.get('num_train_timesteps', 1000)
  if type(steps) is not int:
    raise ValueError(f'num_train_timesteps is {steps!r:.60}; a whole number.')
  if _one_of(c, 'beta_schedule', 'linear', known) == 'linear':
    return linear(
      steps, c.get('beta_start', 1e-4), beta_max=c.get('beta_end', 0.02)
    )
  return cosine(steps)


def linear(
  num_steps: int, beta_min: float, *, beta_max: float
) -> dict[str, Any]:
  """Returns the section of a linear schedule."""
  ends = {'beta_min': beta_min, 'beta_max': beta_max}
  return {'kind': 'linear', 'num_steps': num_steps, **ends}


def cosine(num_steps: int) -> dict[str, Any]:
  """Returns the section of the cosine schedule, [IDDPM] eq. 17."""
  ends = {'offset': 0.008, 'max_beta': 0.999}
  return {'kind': 'cosine', 'num_steps': num_steps, **ends}


def _ancestral(c: Mapping[str, Any]) -> dict[str, Any]:
  variance = _one_of(c, 'variance_type', 'fixed_small', _VARIANCES)
  return {
    'kind': 'ancestral',
    'variance': _VARIANCES[variance],
    'grid': {'kind': 'full'},
  }


def _ddim(c: Mapping[str, Any]) -> dict[str, Any]:
  if c.get('set_alpha_to_one', True) is not True:
    raise ValueError(
      'set_alpha_to_one is false, so that the last step would leave noise in '
      'the image; only true can be followed.'
    )
  known = ('leading', 'trailing')
  if _one_of(c, 'timestep_spacing', 'leading', known) == 'leading':
    grid: dict[str, Any] = {'kind': 'respaced', 'spacing': f'ddim{_DDIM_STEPS}'}
  else:
    grid = {'kind': 'trailing', 'num_steps': _DDIM_STEPS}
  return {'kind': 'ddim', 'eta': 0.0, 'grid': grid}


_SAMPLERS = {'DDPMScheduler': _ancestral, 'DDIMScheduler': _ddim}


def _clip(c: Mapping[str, Any], kind: str) -> str:
  if c.get('clip_sample', True) is not True:
    return 'none'
  # The library's DDIM clips the image, and keeps the noise that was predicted.
  return 'static_x_0' if kind == 'DDIMScheduler' else 'static'


def _one_of(c: Mapping[str, Any], key: str, default: str, known: Any) -> str:
  value = c.get(key, default)
  if not isinstance(value, str) or value not in known:
    raise ValueError(
      f'{key} is {value!r:.60}; {", ".join(known)} can be followed.'
    )
  return value
