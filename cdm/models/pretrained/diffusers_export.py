"""Writes our U-Net as a `UNet2DModel` of diffusers: its config and its weights.

It is the way back of `diffusers_unet`. What that network cannot compute is
refused by the field of ours that asks for it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import numpy as np

from cdm.models.group_norm import group_count
from cdm.models.pretrained import diffusers_unet
from cdm.models.unet import UNet
from cdm.models.unet_plan import Level, plan

CLASS = 'UNet2DModel'
# Fields that its network has in one way only: (value, what ours would do).
_FIXED = {
  'skip_rescale': (False, 'sums of residual blocks are divided by sqrt(2)'),
  'patch_size': (1, 'the network works on squares of pixels'),
  'condition_on': ('t', 'the noise level is embedded by another number'),
  'lowres_level': (False, 'the level of the low-res image is an input'),
}
# {ours: (kind of its blocks, padding of a halving convolution)}.
_RESAMPLE = {
  'conv': ('conv', 1),
  'conv_one_sided': ('conv', 0),
  'biggan': ('resnet', 1),
}
# Layers of one pixel that PyTorch keeps as convolutions.
_POINTWISE = 'conv_shortcut'


class Inexpressible(ValueError):
  """A network that `UNet2DModel` cannot compute."""


def described(
  net: UNet, params: Mapping[str, Any], *, image_size: int
) -> dict[str, Any]:
  """Returns the config.json of a `UNet2DModel` that computes a network.

  Args:
    net: the network.
    params: its parameters, or their shapes.
    image_size: H = W of its images.

  Raises:
    Inexpressible: names the field of `UNet` that it cannot follow.
  """
  for field, (value, does) in _FIXED.items():
    found = getattr(net, field)
    if found != value:
      raise Inexpressible(
        f'config.model.{field} is {found!r}, where {does}; {CLASS} has '
        f'{value!r} alone.'
      )
  if net.condition_scale not in (None, 1.0):
    raise Inexpressible(
      f'config.model.condition_scale is {net.condition_scale}; {CLASS} embeds '
      'the step as it is.'
    )
  if net.resample not in _RESAMPLE:
    raise Inexpressible(
      f'config.model.resample is {net.resample!r}; {CLASS} has '
      f'{", ".join(map(repr, _RESAMPLE))}.'
    )
  levels = plan(net, (image_size, image_size))
  if len({level.num_blocks for level in levels}) > 1:
    raise Inexpressible(
      f'config.model.num_blocks is {net.num_blocks}; {CLASS} has one number '
      'for all levels.'
    )
  scaled = net.embedding == 'film'
  if not scaled and not net.mid_norm:
    raise Inexpressible(
      "config.model.mid_norm is False with embedding='additive'; in "
      f'{CLASS} that attention is normalised.'
    )
  head_width, freq_shift = _head_width(levels), _freq_shift(net)
  _check_groups(net, params)
  shapes = _flat(params)
  kind, padding = _RESAMPLE[net.resample]
  down, up = _blocks(levels, kind)
  mid_groups = net.norm_groups if scaled and net.mid_norm else None
  table = shapes.get('label/embedding')
  return {
    '_class_name': CLASS,
    'sample_size': image_size,
    'in_channels': shapes['conv_in/kernel'].shape[2],
    'out_channels': shapes['conv_out/kernel'].shape[3],
    'block_out_channels': [level.features for level in levels],
    'down_block_types': down,
    'up_block_types': up,
    'layers_per_block': levels[0].num_blocks,
    'attention_head_dim': head_width,
    'norm_num_groups': net.norm_groups,
    'norm_eps': net.norm_eps,
    'num_class_embeds': None if table is None else table.shape[0],
    'dropout': levels[-1].dropout,
    'flip_sin_to_cos': True,
    'freq_shift': freq_shift,
    'downsample_padding': padding,
    'downsample_type': kind,
    'upsample_type': kind,
    'resnet_time_scale_shift': 'scale_shift' if scaled else 'default',
    'attn_norm_num_groups': mid_groups,
    'act_fn': 'silu',
    'add_attention': True,
    'center_input_sample': False,
    'mid_block_scale_factor': 1,
    'time_embedding_type': 'positional',
  }


def state(
  params: Mapping[str, Any], net: UNet, *, image_size: int
) -> dict[str, np.ndarray]:
  """Returns the weights of a `UNet2DModel`, {name: array} in its layout.

  Args:
    params: parameters of the network.
    net: the network, which `described` has not refused.
    image_size: H = W of its images.
  """
  levels = plan(net, (image_size, image_size))
  names = diffusers_unet.module_names(net, levels)
  found = {}
  for name, value in _flat(params).items():
    module, _, leaf = name.rpartition('/')
    theirs = names[module]
    end = 'bias' if leaf == 'bias' else 'weight'
    value = _layout(np.asarray(value, np.float32), leaf, theirs)
    if module.endswith('/qkv'):
      parts = np.split(value, 3)
      for part, own in zip(diffusers_unet.QKV, parts, strict=True):
        found[f'{theirs.replace("to_qkv", part)}.{end}'] = own
    else:
      found[f'{theirs}.{end}'] = value
  return {name: np.ascontiguousarray(value) for name, value in found.items()}


def _flat(params):
  return flax.traverse_util.flatten_dict(dict(params), sep='/')


def _layout(value, leaf, module):
  """Returns our array in PyTorch's layout, see `unet_mapping`."""
  if leaf != 'kernel':
    return value
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)  # [h, w, I, O] -> [O, I, h, w]
  pointwise = module.endswith(_POINTWISE)
  return value.T[:, :, None, None] if pointwise else value.T


def _check_groups(net: UNet, params: Mapping[str, Any]) -> None:
  """Raises Inexpressible if a normalisation has another number of groups."""
  for name, value in _flat(params).items():
    if not name.endswith('/scale'):
      continue
    channels = value.shape[0]
    groups = group_count(channels, net.norm_groups)
    if groups != net.norm_groups:
      raise Inexpressible(
        f'config.model.norm_groups is {net.norm_groups}, but {name} normalises '
        f'{channels} channels in {groups}; {CLASS} has one number for all.'
      )


def _head_width(levels: Sequence[Level]) -> int | None:
  """Returns the width of a head, None for one head everywhere."""
  # The middle attends even where the last level does not.
  attending = [level for level in levels if level.attention] + [levels[-1]]
  heads, widths = set(), set()
  for level in attending:
    for count in (level.num_heads, level.up_heads or level.num_heads):
      heads.add(count)
      widths.add(level.features // count)
  if heads == {1}:
    return None
  if len(widths) > 1:
    raise Inexpressible(
      f'Heads of attention are {sorted(widths)} channels wide; in {CLASS} all '
      'are as wide (config.model.head_features).'
    )
  return widths.pop()


def _freq_shift(net: UNet) -> int:
  for shift in (0, 1):
    if np.isclose(net.max_period, diffusers_unet.period(net.features, shift)):
      return shift
  raise Inexpressible(
    f'config.model.max_period is {net.max_period}; {CLASS} has '
    f'{diffusers_unet.period(net.features, 0)}, or one frequency less.'
  )


def _blocks(levels: Sequence[Level], kind: str) -> tuple[list[str], list[str]]:
  """Returns the types of the blocks on the way down and on the way up."""
  plain: Callable[[str, str], str] = (
    (lambda way, sampling: f'Resnet{sampling}Block2D')
    if kind == 'resnet'
    else (lambda way, sampling: f'{way}Block2D')
  )
  down = [
    'AttnDownBlock2D' if level.attention else plain('Down', 'Downsample')
    for level in levels
  ]
  up = [
    'AttnUpBlock2D' if level.attention else plain('Up', 'Upsample')
    for level in levels[::-1]
  ]
  return down, up
