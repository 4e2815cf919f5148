"""Every published U-Net, by shapes alone: its parameters, and its file."""

import functools
import math

import numpy as np
import pytest

from cdm.models.pretrained import (
  diffusers_unet,
  unet,
  unet_architecture,
  unet_mapping,
)
from cdm.models.pretrained.published_unets import ALIASES, PRESETS
from cdm.models.unet import UNet
from cdm.models.unet_plan import plan


@functools.cache
def shapes(fields, size, lowres_channels):
  return unet_mapping.shapes(UNet(**dict(fields)), size, lowres_channels)


def network(preset):
  """-> (our network of a preset, the shapes of its parameters)."""
  asked = preset.asked
  heads = {'num_heads': asked.num_heads or 1}
  heads['head_features'] = asked.head_features
  fields = {**heads, **preset.fields}
  if preset.family == 'sr3':
    fields |= {'resample': 'conv', 'embedding': 'additive'}
  size = (asked.image_size, asked.image_size)
  low = 3 if asked.lowres_size else 0
  return UNet(**fields), shapes(tuple(sorted(fields.items())), size, low)


def in_file(preset, net, ours):
  """-> {the file's name: an array of its shape that takes no memory}."""
  levels = plan(net, (preset.asked.image_size,) * 2)
  sr3 = preset.family == 'sr3'
  names = unet.sr3_names(levels) if sr3 else unet.adm_names(net, levels)
  state = {}
  for (module, leaf), shape in ours.items():
    if sr3 and module == 'noise/dense2':  # ours is wider, see `sr3_to_cdm`
      shape = (*shape[:-1], net.features)
    elif sr3 and module.endswith('/shift') and leaf == 'kernel':
      shape = (net.features, shape[1])
    elif sr3 and module.endswith('/qkv') and leaf == 'bias':
      continue
    if leaf == 'kernel':
      shape = (*shape[:-3:-1], *shape[:-2])
    name = f'{names[module]}.{"bias" if leaf == "bias" else "weight"}'
    state[name] = np.broadcast_to(np.float32(0), shape)
  return state


@pytest.mark.parametrize('name', PRESETS)
def test_parameters_are_those_of_the_file_and_the_file_tells_its_network(name):
  preset = PRESETS[name]
  net, ours = network(preset)
  if preset.family == 'diffusers':
    assert sum(map(math.prod, ours.values())) == preset.parameters
    return
  state = in_file(preset, net, ours)
  assert sum(a.size for a in state.values()) == preset.parameters
  sr3 = preset.family == 'sr3'
  read = unet_architecture.read_sr3 if sr3 else unet_architecture.read_adm
  found = read(state)
  assert found.at(preset.asked.image_size).items() >= preset.fields.items()
  assert found.lowres_channels == (3 if preset.asked.lowres_size else 0)


@pytest.mark.parametrize(
  'name, published',
  [
    ('adm:imagenet64', 296e6),  # [ADM]
    ('adm:imagenet128', 422e6),
    ('adm:imagenet256', 554e6),
    ('adm:imagenet512', 559e6),
    ('adm:upsample64to256', 312e6),
    ('adm:upsample128to512', 309e6),
    ('adm:lsun_cat', 552e6),
    ('iddpm:imagenet64_cond', 270e6),  # the page of its program
    ('iddpm:upsample64to256', 280e6),
    ('diffusers:ddpm-cifar10-32', 35.7e6),  # [DDPM]
    ('diffusers:ddpm-cat-256', 114e6),
  ],
)
def test_parameters_are_as_many_as_their_authors_say(name, published):
  assert PRESETS[name].parameters == pytest.approx(published, rel=0.012)


def test_other_names_lead_to_presets():
  assert set(ALIASES.values()) <= set(PRESETS)
  assert not set(ALIASES) & set(PRESETS)


@pytest.mark.parametrize('name', ['ddpm-cifar10-32', 'ddpm-ema-cat-256'])
def test_the_config_of_a_published_folder_gives_its_preset(name):
  """As the library of 2022 wrote it."""
  small = name == 'ddpm-cifar10-32'
  widths = (1, 2, 2, 2) if small else (1, 1, 2, 2, 4, 4)
  attends = 1 if small else 4
  count = len(widths)
  down = ['DownBlock2D'] * count
  down[attends] = 'AttnDownBlock2D'
  up = ['UpBlock2D'] * count
  up[count - 1 - attends] = 'AttnUpBlock2D'
  given = {
    '_class_name': 'UNet2DModel',
    '_diffusers_version': '0.0.4',
    'act_fn': 'silu',
    'attention_head_dim': None,
    'block_out_channels': [128 * width for width in widths],
    'center_input_sample': False,
    'down_block_types': down,
    'downsample_padding': 0,
    'flip_sin_to_cos': False,
    'freq_shift': 1,
    'in_channels': 3,
    'layers_per_block': 2,
    'mid_block_scale_factor': 1,
    'norm_eps': 1e-06,
    'norm_num_groups': 32,
    'out_channels': 3,
    'sample_size': 32 if small else 256,
    'time_embedding_type': 'positional',
    'up_block_types': up,
  }
  preset = PRESETS[f'diffusers:{name}']
  fields, side = diffusers_unet.fields(given)
  assert side == preset.asked.image_size
  assert fields.items() >= preset.fields.items()
