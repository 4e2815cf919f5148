"""Converts the U-Nets of diffusers, `UNet2DModel`, to ours.

A folder of diffusers describes its network in config.json, from which the
fields of ours follow. What ours cannot compute is refused by the key that asks
for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.models.pretrained import unet_mapping
from cdm.models.unet import UNet
from cdm.models.unet_plan import Level, plan

# Names of the parts of an attention in files of 2022.
_EARLIER = {
  'query': 'to_q',
  'key': 'to_k',
  'value': 'to_v',
  'proj_attn': 'to_out.0',
}
QKV = ('to_q', 'to_k', 'to_v')


class _Key(NamedTuple):
  """A key of config.json: what stands for its absence, and what is possible.

  Attributes:
    default: the library's.
    kinds: types of the value; bool is no int here.
    only: values that our network can have, or None for all.
  """

  default: Any
  kinds: tuple[type, ...]
  only: tuple[Any, ...] | None = None


_KEYS = {
  'sample_size': _Key(None, (int,)),
  'in_channels': _Key(3, (int,)),
  'out_channels': _Key(3, (int,)),
  'block_out_channels': _Key((224, 448, 672, 896), (list, tuple)),
  'down_block_types': _Key(
    ('DownBlock2D', *['AttnDownBlock2D'] * 3), (list, tuple)
  ),
  'up_block_types': _Key((*['AttnUpBlock2D'] * 3, 'UpBlock2D'), (list, tuple)),
  'layers_per_block': _Key(2, (int,)),
  'attention_head_dim': _Key(8, (int, type(None))),
  'norm_num_groups': _Key(32, (int,)),
  'norm_eps': _Key(1e-5, (int, float)),
  'num_class_embeds': _Key(None, (int, type(None))),
  'dropout': _Key(0.0, (int, float)),
  'flip_sin_to_cos': _Key(True, (bool,)),
  'freq_shift': _Key(0, (int,), (0, 1)),
  'downsample_padding': _Key(1, (int,), (0, 1)),
  'downsample_type': _Key('conv', (str,), ('conv', 'resnet')),
  'upsample_type': _Key('conv', (str,), ('conv', 'resnet')),
  'resnet_time_scale_shift': _Key(
    'default', (str,), ('default', 'scale_shift')
  ),
  'attn_norm_num_groups': _Key(None, (int, type(None))),
  'act_fn': _Key('silu', (str,), ('silu', 'swish')),
  'add_attention': _Key(True, (bool,), (True,)),
  'center_input_sample': _Key(False, (bool,), (False,)),
  'class_embed_type': _Key(None, (str, type(None)), (None,)),
  'mid_block_type': _Key('UNetMidBlock2D', (str,), ('UNetMidBlock2D',)),
  'mid_block_scale_factor': _Key(1, (int, float), (1,)),
  'time_embedding_type': _Key('positional', (str,), ('positional',)),
  'time_embedding_dim': _Key(None, (int, type(None)), (None,)),
  'num_train_timesteps': _Key(None, (int, type(None))),
}
# {type of a block: (attends, resamples by a residual block, or None where
# downsample_type and upsample_type say it)}.
_DOWN = {
  'DownBlock2D': (False, False),
  'AttnDownBlock2D': (True, None),
  'ResnetDownsampleBlock2D': (False, True),
}
_UP = {
  'UpBlock2D': (False, False),
  'AttnUpBlock2D': (True, None),
  'ResnetUpsampleBlock2D': (False, True),
}


def fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
  """Returns the fields of our `UNet` that a config.json describes.

  Args:
    given: the object in the file.

  Returns:
    (fields, side of the images in pixels).

  Raises:
    ValueError: names the key that our network cannot follow.
  """
  c = {name: _value(given, name, key) for name, key in _KEYS.items()}
  for name in given:
    if name not in _KEYS and not name.startswith('_'):
      raise ValueError(
        f'{name} is {given[name]!r:.60}, a key that is not known; the network '
        'may be of another kind than UNet2DModel.'
      )
  widths, side = c['block_out_channels'], c['sample_size']
  if not widths or not all(type(n) is int and n > 0 for n in widths):
    raise ValueError(f'block_out_channels is {widths!r:.60}; whole numbers.')
  if side < 1:
    raise ValueError(f'sample_size is {side}; a number of pixels is needed.')
  if c['freq_shift'] == 1 and widths[0] < 4:
    raise ValueError(
      f'block_out_channels begins with {widths[0]}, and freq_shift is 1; one '
      'frequency less leaves no range.'
    )
  attends, resample = _levels(c)
  scaled = c['resnet_time_scale_shift'] == 'scale_shift'
  variance = c['out_channels'] == 2 * c['in_channels']
  if c['out_channels'] != c['in_channels'] * (1 + variance):
    raise ValueError(
      f'out_channels is {c["out_channels"]} and in_channels '
      f'{c["in_channels"]}; a denoiser has as many, or twice as many.'
    )
  groups = c['attn_norm_num_groups']
  if groups not in (None, c['norm_num_groups']):
    raise ValueError(
      f'attn_norm_num_groups is {groups}, and norm_num_groups is '
      f'{c["norm_num_groups"]}; our network has one number of groups.'
    )
  network = {
    'features': widths[0],
    'multipliers': tuple(_whole(width / widths[0]) for width in widths),
    'num_blocks': c['layers_per_block'],
    'out_channels': c['in_channels'],
    'attention_resolutions': tuple(
      side >> i for i, here in enumerate(attends) if here
    ),
    'num_heads': 1,
    'head_features': c['attention_head_dim'],
    'dropout': float(c['dropout']),
    'resample': resample,
    'embedding': 'film' if scaled else 'additive',
    'num_classes': c['num_class_embeds'],
    'condition_on': 't',
    'learned_variance': variance,
    'norm_groups': c['norm_num_groups'],
    'norm_eps': float(c['norm_eps']),
    'max_period': period(widths[0], c['freq_shift']),
    # The library leaves it out there, and only there.
    'mid_norm': not scaled or groups is not None,
  }
  return network, side


def to_cdm(
  state: Mapping[str, np.ndarray],
  net: UNet,
  *,
  image_size: Sequence[int],
  flip_sin_to_cos: bool,
) -> dict:
  """Converts the weights of a `UNet2DModel` to parameters of ours.

  Args:
    state: {name: array} in PyTorch's names and layouts, those of 2022 too.
    net: the `UNet` that the weights are for, see `fields`.
    image_size: (H, W) of its images.
    flip_sin_to_cos: the key of config.json: whether the cosines come first.

  Returns:
    The parameters as nested dicts of float32 arrays.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  levels = plan(net, image_size)
  names = module_names(net, levels)
  state = _joined(_renamed(state), names)

  def fit(module, leaf, value):
    if module == 'noise/dense1' and leaf == 'kernel' and not flip_sin_to_cos:
      return np.roll(value, net.features // 2, axis=0)
    return value

  shapes = unet_mapping.shapes(net, image_size, 0)
  return unet_mapping.convert(state, shapes, names, fit)


def period(features: int, freq_shift: int) -> float:
  """Returns the longest period of sinusoids, of which one is left out or none.

  Args:
    features: how many sinusoids there are.
    freq_shift: 1 spaces them as if there were one frequency less.
  """
  if freq_shift == 0 or features < 4:
    return UNet.max_period
  half = features // 2
  return UNet.max_period ** (half / (half - 1))


def _value(given: Mapping[str, Any], name: str, key: _Key) -> Any:
  """Returns the value of a key, checked."""
  value = given.get(name, key.default)
  is_bool = isinstance(value, bool) and bool not in key.kinds
  if is_bool or not isinstance(value, key.kinds):
    kinds = ' or '.join(kind.__name__ for kind in key.kinds)
    raise ValueError(f'{name} is {value!r:.60}; expected {kinds}.')
  if key.only is not None and value not in key.only:
    raise ValueError(
      f'{name} is {value!r:.60}; our network can follow '
      f'{", ".join(map(repr, key.only))}.'
    )
  return value


def _levels(c: Mapping[str, Any]) -> tuple[list[bool], str]:
  """Returns where the levels attend, finest first, and how they resample."""
  count = len(c['block_out_channels'])
  ways = {}
  for name, table, kind in (
    ('down_block_types', _DOWN, c['downsample_type']),
    ('up_block_types', _UP, c['upsample_type']),
  ):
    if len(c[name]) != count:
      raise ValueError(
        f'{name} has {len(c[name])} entries, and block_out_channels has '
        f'{count}.'
      )
    blocks = []
    for block in c[name]:
      if not isinstance(block, str) or block not in table:
        raise ValueError(
          f'{name} has {block!r:.60}; our network can follow '
          f'{", ".join(table)}.'
        )
      attends, residual = table[block]
      blocks.append(
        (attends, kind == 'resnet' if residual is None else residual)
      )
    ways[name] = blocks
  down, up = ways['down_block_types'], ways['up_block_types'][::-1]
  if [a for a, _ in down] != [a for a, _ in up]:
    raise ValueError(
      f'down_block_types is {list(c["down_block_types"])} and up_block_types '
      f'{list(c["up_block_types"])}; in our network the levels attend on both '
      'ways or on neither.'
    )
  # The coarsest level has nothing to halve, and the finest nothing to double.
  kinds = {residual for _, residual in down[:-1]} | {r for _, r in up[1:]}
  if len(kinds) > 1:
    raise ValueError(
      'The blocks resample partly by convolutions and partly by residual '
      'blocks; our network has one way for all levels.'
    )
  if kinds == {True}:
    resample = 'biggan'
  else:
    resample = 'conv' if c['downsample_padding'] else 'conv_one_sided'
  return [a for a, _ in down], resample


def _renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the state by today's names."""
  renamed = {}
  for name, value in state.items():
    module, _, leaf = name.rpartition('.')
    before, _, part = module.rpartition('.')
    if '.attentions.' in name and part in _EARLIER:
      name = f'{before}.{_EARLIER[part]}.{leaf}'
    renamed[name] = value
  return renamed


def _joined(
  state: dict[str, np.ndarray], names: Mapping[str, str]
) -> dict[str, np.ndarray]:
  """Joins queries, keys and values, which files hold as three layers."""
  missing = []
  for ours, theirs in names.items():
    if not ours.endswith('/qkv'):
      continue
    for leaf in ('weight', 'bias'):
      parts = [theirs.replace('to_qkv', part) + f'.{leaf}' for part in QKV]
      missing += [part for part in parts if part not in state]
      if not missing:
        state[f'{theirs}.{leaf}'] = np.concatenate(
          [np.atleast_1d(state.pop(part)) for part in parts]
        )
  if missing:
    raise ValueError(
      f'The file lacks {len(missing)} parts of attentions: '
      f'{unet_mapping.listed(missing)}.'
    )
  return state


def module_names(net: UNet, levels: Sequence[Level]) -> dict[str, str]:
  """Returns {our module: the module of the file}."""
  block = {
    'norm1': 'norm1',
    'conv1': 'conv1',
    'film': 'time_emb_proj',
    'shift': 'time_emb_proj',
    'norm2': 'norm2',
    'conv2': 'conv2',
    'skip': 'conv_shortcut',
  }
  attention = {'norm': 'group_norm', 'qkv': 'to_qkv', 'out': 'to_out.0'}
  names = {
    'mid_block_0': 'mid_block.resnets.0',
    'mid_attention': 'mid_block.attentions.0',
    'mid_block_1': 'mid_block.resnets.1',
  }
  conv = '' if net.resample == 'biggan' else '.conv'
  for way, order in (('down', levels), ('up', levels[::-1])):
    for i, level in enumerate(order):
      theirs = f'{way}_blocks.{i}'
      for j in range(level.num_blocks + (way == 'up')):
        ours = f'{way}_{level.name}'
        names[f'{ours}_block_{j}'] = f'{theirs}.resnets.{j}'
        if level.attention:
          names[f'{ours}_attention_{j}'] = f'{theirs}.attentions.{j}'
      if i + 1 < len(order):
        ours = f'{way}_{level.name}_to_{order[i + 1].name}'
        names[ours] = f'{theirs}.{way}samplers.0{conv}'
  parts = {'block': block, 'attention': attention}
  return unet_mapping.inside(names, parts) | {
    'conv_in': 'conv_in',
    'noise/dense1': 'time_embedding.linear_1',
    'noise/dense2': 'time_embedding.linear_2',
    'label': 'class_embedding',
    'norm_out': 'conv_norm_out',
    'conv_out': 'conv_out',
  }


def _whole(value: float) -> float:
  return int(value) if value == int(value) else value
