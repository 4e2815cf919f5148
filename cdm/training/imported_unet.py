"""Reads the published weights of a U-Net, and makes the config of its stage.

The families are [ADM]'s and [IDDPM]'s programs, the unofficial PyTorch SR3 and
diffusers. Each file is for the network that its shapes describe, with what
shapes cannot tell as `published_unets.Asked`.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cdm.config import diffusers_scheduler, imported_unet, loader
from cdm.config.diffusion_stage import unet as build_unet
from cdm.data.files import json_file
from cdm.models.pretrained import (
  diffusers_unet,
  unet,
  unet_architecture,
  weights_file,
)
from cdm.models.pretrained.published_unets import Asked, Preset

ATTENTION_ORDERS = unet.ATTENTION_ORDER
SCHEDULES = ('linear', 'cosine')
_WEIGHTS = (
  'diffusion_pytorch_model.safetensors',
  'diffusion_pytorch_model.bin',
)
CONFIG = 'config.json'
SCHEDULER = 'scheduler_config.json'
_REMEDY = 'Fetch it again, from where the model is published.'
_SR3_PREFIX = 'denoise_fn.'
# What the user may say of the files of each family.
_IMAGES = ('image_size', 'lowres_size')
_SCHEDULE = ('schedule', 'timesteps')
_USED = {
  'adm': (
    *(*_IMAGES, 'num_heads', 'head_features', 'attention_order'),
    *(*_SCHEDULE, 'rescale_timesteps', 'dropout'),
  ),
  'improved-diffusion': (
    *(*_IMAGES, 'num_heads', *_SCHEDULE, 'rescale_timesteps', 'dropout'),
  ),
  'sr3': (*_IMAGES, 'norm_groups', *_SCHEDULE, 'dropout'),
  'diffusers': _SCHEDULE,
}


class Imported(NamedTuple):
  """A stage of published weights.

  Attributes:
    config: its complete config.
    params: its parameters, nested dicts of float32 arrays.
  """

  config: loader.ConfigDict
  params: dict


def read(
  family: str,
  path: str | os.PathLike,
  *,
  name: str,
  asked: Asked,
  preset: Preset | None = None,
) -> Imported:
  """Reads a file, or a folder of diffusers.

  Args:
    family: one of `FAMILIES`.
    path: the file or folder.
    name: of the stage that is made.
    asked: what the user says of the network.
    preset: the published network that it is to be, in the place of `asked`.

  Raises:
    ValueError: the file is of another network than was asked for, or something
      has to be asked for that was not given; it names what.
    DamagedWeights: the file is no file of weights.
    OSError: it cannot be read.
  """
  given = [k for k, v in asked._asdict().items() if v is not None]
  if preset is not None:
    if given:
      raise ValueError(
        f'{_flag(given[0])} is given, but the preset says it; leave it out, or '
        f'use --from={family} without a preset.'
      )
    asked = preset.asked
  for key in given:
    if key not in _USED[family]:
      raise ValueError(
        f'{_flag(key)} is given, which says nothing of a file of {family}; '
        f'leave it out. It has {", ".join(map(_flag, _USED[family]))}.'
      )
  return FAMILIES[family](pathlib.Path(path), name, asked, preset)


def _read_openai(
  family: str,
) -> Callable[[pathlib.Path, str, Asked, Preset | None], Imported]:
  """Returns the reader of [ADM]'s or [IDDPM]'s files."""

  def read_file(path, name, asked, preset):
    state = weights_file.read(path)
    found = _architecture(path, state, unet_architecture.read_adm)
    if family == 'improved-diffusion':
      asked = asked._replace(attention_order='legacy')
      _needed(path, asked, 'rescale_timesteps')
    _needed(path, asked, 'image_size', 'attention_order')
    _needed(path, asked, 'schedule', 'timesteps')
    if asked.num_heads is not None and asked.head_features is not None:
      raise ValueError(
        '--num_heads and --head_features say the same of attention; give one.'
      )
    if asked.num_heads is None and asked.head_features is None:
      raise ValueError(
        f'{path} does not tell the heads of attention; give --num_heads'
        + (' or --head_features.' if family == 'adm' else '.')
      )
    steps = asked.timesteps
    network = {
      **found.at(asked.image_size),
      'num_heads': asked.num_heads or 1,
      'head_features': asked.head_features,
      'dropout': asked.dropout or 0.0,
      'norm_groups': 32,
      'condition_scale': 1000 / steps if asked.rescale_timesteps else None,
    }
    _compare(path, preset, network)
    learned = network['learned_variance']
    config = imported_unet.make(
      name,
      image_size=asked.image_size,
      network=network,
      schedule=_openai_schedule(asked.schedule, steps),
      sampler={
        'kind': 'ancestral',
        'variance': 'learned' if learned else 'beta',
        'grid': {'kind': 'respaced', 'spacing': str(min(250, steps))},
      },
      # improved-diffusion rescales the bound wherever it rescales t.
      objective={
        'vb_rescale': bool(asked.rescale_timesteps)
        and family == 'improved-diffusion'
      },
      lowres=_lowres(
        path, asked, found, downsample='area', upsample='bilinear'
      ),
      paper=_paper(preset),
    )
    params = _converted(
      path,
      lambda net, size: unet.adm_to_cdm(
        state, net, image_size=size, attention_order=asked.attention_order
      ),
      config,
    )
    return Imported(config, params)

  return read_file


def _openai_schedule(kind: str, steps: int) -> dict[str, Any]:
  """Returns the schedules of [IDDPM]'s program: linear betas scale with T."""
  if kind == 'cosine':
    return diffusers_scheduler.cosine(steps)
  scale = 1000 / steps
  return diffusers_scheduler.linear(steps, scale * 1e-4, beta_max=scale * 0.02)


def _read_sr3(path, name, asked, preset):
  state = weights_file.read(path, [_SR3_PREFIX])
  betas = state.get('betas')
  # What else the program keeps of its schedule follows from the betas.
  state = {k: v for k, v in state.items() if '.' in k}
  found = _architecture(path, state, unet_architecture.read_sr3)
  _needed(path, asked, 'image_size', 'norm_groups')
  if preset is None and betas is not None:
    for key in _SCHEDULE:
      if getattr(asked, key) is not None:
        raise ValueError(
          f'{_flag(key)} is given, but {path} holds its own schedule; leave '
          'it out.'
        )
  schedule = _sr3_schedule(path, betas, asked)
  network = {
    **found.at(asked.image_size),
    'dropout': asked.dropout or 0.0,
    'norm_groups': asked.norm_groups,
  }
  _compare(path, preset, network)
  config = imported_unet.make(
    name,
    image_size=asked.image_size,
    network=network,
    schedule=schedule,
    sampler={
      'kind': 'ancestral',
      'variance': 'posterior',
      'grid': {'kind': 'full'},
    },
    objective={'levels': 'piecewise', 'norm': 1},
    lowres=_lowres(
      path, asked, found, downsample='bicubic', upsample='bicubic'
    ),
    paper=_paper(preset),
  )
  params = _converted(
    path, lambda net, size: unet.sr3_to_cdm(state, net, image_size=size), config
  )
  return Imported(config, params)


def _sr3_schedule(path, betas, asked):
  """Returns the schedule in the file, or the one of its program's configs."""
  if betas is None:
    if asked.schedule not in (None, 'linear'):
      raise ValueError(
        f'--schedule={asked.schedule}: the SR3 of PyTorch is trained with a '
        'linear one; give --schedule=linear, or leave it out.'
      )
    # Those of all its configs.
    return diffusers_scheduler.linear(
      asked.timesteps or 2000, 1e-6, beta_max=1e-2
    )
  betas = np.asarray(betas, np.float64).reshape(-1)
  section = diffusers_scheduler.linear(
    len(betas), _rounded(betas[:1]), beta_max=_rounded(betas[-1:])
  )
  even = np.linspace(section['beta_min'], section['beta_max'], len(betas))
  if not np.allclose(betas, even, rtol=1e-5, atol=0):
    raise ValueError(
      f'{path} holds a schedule whose betas are not evenly spaced, from '
      f'{betas[:1]} to {betas[-1:]}; only linear ones can be imported.'
    )
  return section


def _rounded(values: np.ndarray) -> float:
  """Returns what float32 has rounded, in few digits."""
  return float(f'{values[0]:.6g}') if len(values) else 0.0


def _read_diffusers(path, name, asked, preset):
  folder, scheduler = _diffusers_folders(path)
  described = json_file.read(folder / CONFIG, dict[str, Any], remedy=_REMEDY)
  try:
    network, side = diffusers_unet.fields(described)
  except ValueError as error:
    raise ValueError(f'{folder / CONFIG}: {error}') from None
  _compare(folder / CONFIG, preset, network)
  how = diffusers_scheduler.Scheduler(
    diffusers_scheduler.linear(1000, 1e-4, beta_max=0.02),
    {
      'kind': 'ancestral',
      'variance': 'learned' if network['learned_variance'] else 'beta',
      'grid': {'kind': 'full'},
    },
    'eps',
  )
  if asked.timesteps is not None:
    _needed(path, asked, 'schedule')
  if asked.schedule is not None:
    steps = asked.timesteps or 1000
    section = _openai_schedule(asked.schedule, steps)
    how = how._replace(schedule=section)
  elif scheduler is None:
    raise ValueError(
      f'{path} has no {SCHEDULER}, which says how the network was trained; '
      'add it, or give --schedule=linear or --schedule=cosine.'
    )
  else:
    found = json_file.read(scheduler, dict[str, Any], remedy=_REMEDY)
    try:
      how = diffusers_scheduler.read(found)
    except ValueError as error:
      raise ValueError(
        f'{scheduler}: {error} Give --schedule=linear or --schedule=cosine in '
        'its place.'
      ) from None
  if network['learned_variance'] and how.sampler['kind'] == 'ancestral':
    how.sampler['variance'] = 'learned'
  config = imported_unet.make(
    name,
    image_size=side,
    network=network,
    schedule=how.schedule,
    sampler=how.sampler,
    objective={'prediction': how.prediction},
    lowres=None,
    paper=_paper(preset),
  )
  weights = next((folder / w for w in _WEIGHTS if (folder / w).exists()), None)
  if weights is None:
    raise ValueError(f'{folder} has none of {", ".join(_WEIGHTS)}.')
  state = weights_file.read(weights)
  params = _converted(
    weights,
    lambda net, size: diffusers_unet.to_cdm(
      state,
      net,
      image_size=size,
      flip_sin_to_cos=described.get('flip_sin_to_cos', True),
    ),
    config,
  )
  return Imported(config, params)


def _diffusers_folders(path):
  """Returns (folder of the network, scheduler's file or None)."""
  if not path.is_dir():
    raise ValueError(
      f'{path} is not a folder; give the one that the library wrote, with '
      f'unet/{CONFIG} and scheduler/{SCHEDULER}, or with {CONFIG} itself.'
    )
  folder = path / 'unet' if (path / 'unet' / CONFIG).exists() else path
  if not (folder / CONFIG).exists():
    raise ValueError(f'{path} has neither unet/{CONFIG} nor {CONFIG}.')
  places = (path / 'scheduler', path, path.parent / 'scheduler')
  files = [place / SCHEDULER for place in places]
  return folder, next((file for file in files if file.exists()), None)


FAMILIES: dict[str, Callable[..., Imported]] = {
  'adm': _read_openai('adm'),
  'improved-diffusion': _read_openai('improved-diffusion'),
  'diffusers': _read_diffusers,
  'sr3': _read_sr3,
}


def _architecture(path, state, read_state):
  try:
    return read_state(state)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _needed(path: pathlib.Path, asked: Asked, *names: str) -> None:
  """Raises ValueError unless the user has said these."""
  missing = [name for name in names if getattr(asked, name) is None]
  if missing:
    raise ValueError(
      f'{path} does not tell {", ".join(missing)}; give '
      f'{" ".join(_flag(name) + "=VALUE" for name in missing)}, or name a '
      'preset.'
    )


def _flag(name: str) -> str:
  return f'--{name}'


def _lowres(path, asked, found, **how):
  """Returns the section `lowres`, None for a base model."""
  if not found.lowres_channels:
    if asked.lowres_size is not None:
      raise ValueError(
        f'--lowres_size={asked.lowres_size}: the network in {path} takes no '
        'low-res image; leave it out.'
      )
    return None
  if found.lowres_channels != found.fields['out_channels']:
    raise ValueError(
      f'The network in {path} takes {found.lowres_channels} channels beside '
      'its image; a low-res image has 3.'
    )
  _needed(path, asked, 'lowres_size')
  return {'size': asked.lowres_size, **how, 'augment': 'none'}


def _compare(
  path: pathlib.Path, preset: Preset | None, network: Mapping[str, Any]
) -> None:
  """Raises ValueError with the first difference to a published network."""
  if preset is None:
    return
  for field, value in preset.fields.items():
    if network[field] != value:
      raise ValueError(
        f'{path} is another network than this preset: its {field} is '
        f'{network[field]}, and {value} was expected. Name the right preset, '
        'or give the family alone.'
      )


def _paper(preset: Preset | None) -> Mapping[str, Any]:
  return {'source': 'none'} if preset is None else preset.paper


def _converted(path, convert, config):
  """Returns the parameters; a file of another network is named."""
  size = config.pipeline.image_size
  net = build_unet(config, size)
  try:
    return convert(net, (size, size))
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
