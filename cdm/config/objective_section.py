"""Builds the training objective that a `method` section of diffusion describes.

`prediction`, `levels` and `weighting` are each a word, or a section whose
`kind` is that word and whose other keys are its options; the word alone takes
their defaults.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cdm.config import instantiate, key_errors, value_types
from cdm.diffusion import noise_levels, weightings
from cdm.diffusion.preconditioning import Edm
from cdm.diffusion.schedules import Schedule
from cdm.methods.diffusion_options import Objective
from cdm.models.loss_uncertainty import LossUncertainty

# The words of `prediction` and `levels` that have options.
PREDICTIONS = {'edm': Edm}
LEVELS = {'log_normal': noise_levels.LogNormal}
WEIGHTINGS = {
  'none': None,
  'min_snr': weightings.min_snr,
  'truncated_snr': weightings.truncated_snr,
  'sigmoid': weightings.sigmoid,
  'sigmoid_integral': weightings.sigmoid_integral,
  'edm': weightings.edm,
  'p2': weightings.p2,
}
# The kind of weighting that is learned, around one of those.
_LEARNED = 'uncertainty'
# Arguments of a weighting that no config gives.
_FILLED_IN = ('logsnr', 'target', 'log_spread')


def objective(
  section: ConfigDict | Mapping[str, Any], schedule: Schedule
) -> Objective:
  """Builds the `Objective` of a `method` section.

  Args:
    section: the section; its `kind` is left out.
    schedule: the noise schedule of training.

  Raises:
    ValueError: names the key that is unknown or cannot be used.
  """
  section = dict(section)
  section.pop('kind', None)
  own: dict[str, Any] = {}
  for key, table in (('prediction', PREDICTIONS), ('levels', LEVELS)):
    if key in section:
      section[key], own[key] = _word(f'method.{key}', section[key], table)
      del (section if own[key] is not None else own)[key]
  levels = own.get('levels', section.get('levels', 'discrete'))
  given = section.pop('weighting', 'none')
  given, own['uncertainty'] = _learned(given)
  own['weighting'] = _weighting(given, levels, schedule)
  _check_one_sigma_data(own.get('prediction'), own['weighting'])
  return instantiate.splat('method', Objective, section, **own)


def shown(value: Any) -> str:
  """Returns the word of a prediction or of levels, for a summary."""
  for word, kind in {**PREDICTIONS, **LEVELS}.items():
    if isinstance(value, kind):
      options = ', '.join(f'{k}={v:g}' for k, v in vars(value).items())
      return f'{word} ({options})'
  return value


def _word(name, value, table):
  """Returns (the word, None), or (None, the object of a word with options)."""
  if isinstance(value, str):
    return (None, table[value]()) if value in table else (value, None)
  if not isinstance(value, Mapping | ConfigDict):
    value_types.check(name, value, str)
  given = dict(value)
  if 'kind' in given:
    value_types.check(f'{name}.kind', given['kind'], str)
  if given.get('kind') in table:
    return None, instantiate.choose(name, given, table)
  word = given.pop('kind', None)
  for key in given:
    raise ValueError(
      f'config.{name}.{key} is given, but only {", ".join(map(repr, table))} '
      f'has options, and config.{name}.kind is {key_errors.shown(word)}. Set '
      f'it with --config.{name}.kind={next(iter(table))}.'
    )
  return word, None


def _as_section(name, value):
  """Returns a word or a section as a dict with a kind."""
  if isinstance(value, str):
    return {'kind': value}
  return instantiate.as_dict(name, value)


def _learned(value):
  """Returns (the weighting that is learned around, what is learned)."""
  section = _as_section('method.weighting', value)
  if section.get('kind') != _LEARNED:
    return value, None
  del section['kind']
  base, features = section.pop('base', 'none'), section.pop('features', 128)
  is_normalized = section.pop('normalized', False)
  for key in section:
    raise ValueError(
      f'config.method.weighting.{key} is not an option of {_LEARNED!r}; it has '
      "['base', 'features', 'normalized']."
    )
  value_types.check('method.weighting.features', features, int)
  value_types.check('method.weighting.normalized', is_normalized, bool)
  if features < 1:
    raise ValueError(
      f'config.method.weighting.features is {features}; use at least 1, e.g. '
      '--config.method.weighting.features=128.'
    )
  if _as_section('method.weighting.base', base).get('kind') == _LEARNED:
    raise ValueError(
      f'config.method.weighting.base is {_LEARNED!r} too; give the weighting '
      'that is learned around, e.g. --config.method.weighting.base=none.'
    )
  return base, LossUncertainty(features, is_normalized)


def _weighting(
  value: str | ConfigDict | Mapping[str, Any],
  levels: noise_levels.Levels,
  schedule: Schedule,
) -> Callable[..., jax.Array] | None:
  """Returns the loss weighting that `method.weighting` describes.

  Args:
    value: the name of a kind, or a section with a kind and its options.
    levels: of the objective.
    schedule: the noise schedule of training.
  """
  section = _as_section('method.weighting', value)
  known = {**WEIGHTINGS, _LEARNED: None}
  kind = instantiate.kind_of('method.weighting', section, known)
  chosen = WEIGHTINGS[kind]
  taken = list(inspect.signature(chosen).parameters) if chosen else []
  options = [name for name in taken if name not in _FILLED_IN]
  for key in section:
    if key not in options:
      raise ValueError(
        f'config.method.weighting.{key} is not an option of {kind!r}; it has '
        f'{options}.'
      )
  if chosen is None:
    return None
  value_types.check_arguments('method.weighting', chosen, section)
  weighting = functools.partial(chosen, **section)
  if 'log_spread' in taken:
    noise_levels.check(levels, schedule)
    with key_errors.naming('method', ['levels'], otherwise='method.levels'):
      spread = noise_levels.log_spread(levels, schedule)
    weighting = functools.partial(weighting, log_spread=spread)
  with key_errors.naming('method.weighting', options):
    jax.eval_shape(
      lambda logsnr: weighting(logsnr, 'eps'),
      jax.ShapeDtypeStruct((1,), np.float32),
    )
  return weighting


def _check_one_sigma_data(prediction, weighting):
  """Refuses two standard deviations of the same data."""
  if not isinstance(prediction, Edm) or weighting is None:
    return
  if weighting.func is not weightings.edm:
    return
  default = inspect.signature(weightings.edm).parameters['sigma_data'].default
  other = weighting.keywords.get('sigma_data', default)
  if other != prediction.sigma_data:
    raise ValueError(
      f'config.method.weighting.sigma_data is {other:g}, but '
      f'config.method.prediction.sigma_data is {prediction.sigma_data:g}; it '
      'is the deviation of the same data. Give both the same, or set '
      '--config.method.weighting=none, which weighs as [EDM] does in what the '
      'network predicts.'
    )
