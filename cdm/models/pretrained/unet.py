"""Converts published PyTorch weights of U-Nets (ADM, IDDPM, SR3) to ours.

`unet_mapping` takes the parameters by these names, in our layout; what differs
besides, such as the order of channels, is here. `unet_architecture` reads which
network a file is for.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cdm.models.pretrained import unet_mapping
from cdm.models.unet import UNet
from cdm.models.unet_plan import Level, plan

ATTENTION_ORDER = ('legacy', 'new')

# The offset is so large that silu(z + offset) equals z + offset to float32's
# last digit for any activation z of a network.
_LINEAR_SILU = 20.0


def adm_to_cdm(
  state: Mapping[str, np.ndarray],
  net: UNet,
  *,
  image_size: Sequence[int],
  attention_order: str = 'legacy',
) -> dict:
  """Converts the weights of [ADM]'s or [IDDPM]'s U-Net to parameters of ours.

  Args:
    state: {name: array} in PyTorch's names and layouts. The file of a network
      with a low-res condition has twice the input channels.
    net: the `UNet` that the weights are for.
    image_size: (H, W) of its images.
    attention_order: how the file orders the channels of q, k and v: 'legacy'
      by head first, 'new' by q, k, v first ([ADM] use_new_attention_order).

  Returns:
    The parameters as nested dicts of float32 arrays; apply them as
    `{'params': parameters}`.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  if attention_order not in ATTENTION_ORDER:
    raise ValueError(
      f'attention_order is {attention_order!r}; known are '
      f'{", ".join(ATTENTION_ORDER)}.'
    )
  levels = plan(net, image_size)
  heads = {'mid': levels[-1].num_heads}
  for level in levels:
    heads[f'down_{level.name}'] = level.num_heads
    heads[f'up_{level.name}'] = level.up_heads or level.num_heads

  def fit(module, leaf, value):
    if not module.endswith('/qkv') or attention_order == 'new':
      return value
    num_heads = heads[module.split('_attention')[0]]
    if value.shape[-1] % (3 * num_heads):
      return value  # a wrong shape, which `convert` refuses
    by_head = value.reshape(*value.shape[:-1], num_heads, 3, -1)
    return np.swapaxes(by_head, -3, -2).reshape(value.shape)

  in_channels = unet_mapping.in_channels(state, 'input_blocks.0.0')
  lowres_channels = in_channels - net.out_channels
  shapes = unet_mapping.shapes(net, image_size, lowres_channels)
  return unet_mapping.convert(state, shapes, adm_names(net, levels), fit)


def sr3_to_cdm(
  state: Mapping[str, np.ndarray], net: UNet, *, image_size: Sequence[int]
) -> dict:
  """Converts the weights of the unofficial PyTorch SR3's U-Net.

  That network projects the noise embedding without an activation and to
  `features` only. Our network computes the same function once the embedding is
  shifted to where silu is the identity and the projection shifts it back. That
  is exact to a few 1e-6 in float32, but not in bfloat16. SR3's attention has
  one head and no bias in qkv.

  Args:
    state: {name: array} in PyTorch's names and layouts.
    net: the `UNet` that the weights are for: resample 'conv', embedding
      'additive', condition_on 'sqrt_alpha_bar', condition_scale 1.0.
    image_size: (H, W) of its images.

  Returns:
    The parameters as nested dicts of float32 arrays; apply them as
    `{'params': parameters}`.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  levels = plan(net, image_size)
  in_channels = unet_mapping.in_channels(state, 'downs.0')
  lowres_channels = in_channels - net.out_channels
  width = 4 * net.features

  def fit(module, leaf, value):
    if module == 'conv_in' and leaf == 'kernel':  # SR3: lowres first
      return np.roll(value, -lowres_channels, axis=2)
    if module == 'noise/dense1' and leaf == 'kernel':  # SR3: [sin, cos]
      return np.roll(value, net.features // 2, axis=0)
    if module == 'noise/dense2':
      value = value + _LINEAR_SILU if leaf == 'bias' else value
      padding = [(0, 0)] * (value.ndim - 1) + [(0, width - value.shape[-1])]
      return np.pad(value, padding)
    if module.endswith('/shift') and leaf == 'kernel':
      return np.pad(value, ((0, width - value.shape[0]), (0, 0)))
    return value

  names = sr3_names(levels)
  state = dict(state)
  for module, source in names.items():
    kernel = state.get(f'{source}.weight')
    if kernel is None:
      continue
    if module.endswith('/qkv'):
      state[f'{source}.bias'] = np.zeros(len(kernel))
    if module.endswith('/shift'):
      moved = _LINEAR_SILU * np.sum(kernel, axis=1, dtype=np.float64)
      state[f'{source}.bias'] = state[f'{source}.bias'] - moved
  shapes = unet_mapping.shapes(net, image_size, lowres_channels)
  return unet_mapping.convert(state, shapes, names, fit)


def adm_names(net: UNet, levels: Sequence[Level]) -> dict[str, str]:
  """Returns {our module: the module of [ADM]'s or [IDDPM]'s file}."""
  block = {
    'norm1': 'in_layers.0',
    'conv1': 'in_layers.2',
    'film': 'emb_layers.1',
    'shift': 'emb_layers.1',
    'norm2': 'out_layers.0',
    'conv2': 'out_layers.3',
    'skip': 'skip_connection',
  }
  attention = {'norm': 'norm', 'qkv': 'qkv', 'out': 'proj_out'}
  down, up = unet_mapping.ways(levels)
  biggan = net.resample == 'biggan'
  attends = {level.name: level.attention for level in levels}
  names = {
    'mid_block_0': 'middle_block.0',
    'mid_attention': 'middle_block.1',
    'mid_block_1': 'middle_block.2',
  }
  for i, entry in enumerate(down):
    for part, name in enumerate(entry):
      op = '.op' if '_to_' in name and not biggan else ''
      names[name] = f'input_blocks.{i}.{part}{op}'
  i = -1
  for entry in up:
    if '_to_' not in entry[0]:
      i += 1
      names |= {n: f'output_blocks.{i}.{j}' for j, n in enumerate(entry)}
      continue
    # In their file, the upsampling is the last part of the level's last block.
    part = 1 + attends[entry[0].split('_')[1]]
    names[entry[0]] = f'output_blocks.{i}.{part}{"" if biggan else ".conv"}'
  parts = {'block': block, 'attention': attention}
  return unet_mapping.inside(names, parts) | {
    'noise/dense1': 'time_embed.0',
    'noise/dense2': 'time_embed.2',
    'label': 'label_emb',
    'norm_out': 'out.0',
    'conv_out': 'out.2',
  }


def sr3_names(levels: Sequence[Level]) -> dict[str, str]:
  """Returns {our module: the module of SR3's file}."""
  block = {
    'norm1': 'block1.block.0',
    'conv1': 'block1.block.3',
    'shift': 'noise_func.noise_func.0',
    'norm2': 'block2.block.0',
    'conv2': 'block2.block.3',
    'skip': 'res_conv',
  }
  attention = {'norm': 'norm', 'qkv': 'qkv', 'out': 'out'}
  names = {
    'mid_block_0': 'mid.0.res_block',
    'mid_attention': 'mid.0.attn',
    'mid_block_1': 'mid.1.res_block',
  }
  both = unet_mapping.ways(levels)
  for prefix, way in zip(('downs', 'ups'), both, strict=True):
    for i, entry in enumerate(way):
      if len(entry) == 2:
        names[entry[0]] = f'{prefix}.{i}.res_block'
        names[entry[1]] = f'{prefix}.{i}.attn'
      else:
        names[entry[0]] = f'{prefix}.{i}.conv'
  parts = {'block': block, 'attention': attention}
  return unet_mapping.inside(names, parts) | {
    'conv_in': 'downs.0',
    'noise/dense1': 'noise_level_mlp.1',
    'noise/dense2': 'noise_level_mlp.3',
    'norm_out': 'final_conv.block.0',
    'conv_out': 'final_conv.block.3',
  }
