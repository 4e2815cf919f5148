"""Converts published PyTorch weights of U-Nets (ADM, IDDPM, SR3) to ours.

PyTorch stores a convolution as [out, in, h, w] and a dense layer as [out, in];
ours are [h, w, in, out] and [in, out]. The names and shapes that a file must
hold follow from the network, so a file of another network is refused at its
first wrong parameter. No command calls the two converters yet; `cdm import` is
planned for that.
"""

from collections.abc import Callable, Mapping, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np

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
  heads = {
    level.features: level.num_heads for level in levels if level.num_heads
  }

  def fit(module, leaf, value):
    # The result is None if the file's shape is wrong, which `_convert` refuses.
    num_heads = heads.get(value.shape[-1] // 3)
    if not module.endswith('/qkv') or attention_order == 'new' or not num_heads:
      return value
    by_head = value.reshape(*value.shape[:-1], num_heads, 3, -1)
    return np.swapaxes(by_head, -3, -2).reshape(value.shape)

  lowres_channels = _in_channels(state, 'input_blocks.0.0') - net.out_channels
  shapes = _shapes(net, image_size, lowres_channels)
  return _convert(state, shapes, _adm_names(net, levels), fit)


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
  lowres_channels = _in_channels(state, 'downs.0') - net.out_channels
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

  names = _sr3_names(levels)
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
  return _convert(state, _shapes(net, image_size, lowres_channels), names, fit)


def _convert(
  state: Mapping[str, np.ndarray],
  shapes: dict[tuple[str, str], tuple[int, ...]],
  names: dict[str, str],
  fit: Callable[[str, str, np.ndarray], np.ndarray],
) -> dict:
  """Takes every parameter in `shapes` from `state`, in our layout and order.

  Args:
    state: {the file's name: array}.
    shapes: {(our module, leaf): shape}.
    names: {our module: the file's module}.
    fit: `(our module, leaf, array in our layout) -> array in our order`.

  Returns:
    Nested dicts of float32 arrays.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  params, used = {}, set()
  for (module, leaf), shape in shapes.items():
    if module not in names:
      raise ValueError(f'{module} has no counterpart in this kind of file.')
    source = f'{names[module]}.{"bias" if leaf == "bias" else "weight"}'
    if source not in state:
      raise ValueError(f'{source} is missing; it is our {module}/{leaf}.')
    used.add(source)
    value = _layout(np.asarray(state[source], np.float32), leaf)
    value = fit(module, leaf, value)
    if value.shape != shape:
      raise ValueError(
        f'{source} is {value.shape} in our layout; our {module}/{leaf} is '
        f'{shape}.'
      )
    params[(*module.split('/'), leaf)] = value
  unknown = [name for name in state if name not in used]
  if unknown:
    raise ValueError(
      f'The network has no place for {len(unknown)} parameters of the file, '
      f'first {unknown[0]}.'
    )
  return flax.traverse_util.unflatten_dict(params)


def _layout(value: np.ndarray, leaf: str) -> np.ndarray:
  """Returns PyTorch's array in our layout."""
  if leaf != 'kernel':
    return value
  if value.ndim == 4 and value.shape[2:] != (1, 1):
    return value.transpose(2, 3, 1, 0)  # [O, I, h, w] -> [h, w, I, O]
  return value.reshape(value.shape[:2]).T  # [O, I], [O, I, 1] or [O, I, 1, 1]


def _in_channels(state: Mapping[str, np.ndarray], first: str) -> int:
  """Returns the input channels of the file's first convolution."""
  name = f'{first}.weight'
  if name not in state:
    raise ValueError(f'{name} is missing; it is our conv_in/kernel.')
  return state[name].shape[1]


def _shapes(
  net: UNet, image_size: Sequence[int], lowres_channels: int
) -> dict[tuple[str, str], tuple[int, ...]]:
  """Returns {(module, leaf): shape} of our parameters, allocating none."""

  def init(key):
    x = jnp.zeros((1, *image_size, net.out_channels))
    lowres = jnp.zeros((1, *image_size, max(lowres_channels, 0)))
    return net.init(
      key,
      x,
      jnp.zeros(1),
      label=None if net.num_classes is None else jnp.zeros(1, jnp.int32),
      lowres=lowres if lowres_channels > 0 else None,
      lowres_level=jnp.zeros(1) if net.lowres_level else None,
      train=False,
    )['params']

  tree = flax.traverse_util.flatten_dict(
    jax.eval_shape(init, jax.random.key(0))
  )
  return {('/'.join(k[:-1]), k[-1]): leaf.shape for k, leaf in tree.items()}


def _ways(
  levels: Sequence[Level],
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
  """Returns our modules on the way down and on the way up, in order.

  An entry is (block, its attention) or (resampling,) or (conv_in,).
  """
  down: list[tuple[str, ...]] = [('conv_in',)]
  up: list[tuple[str, ...]] = []
  for level, coarser in zip(levels, (*levels[1:], None), strict=True):
    for j in range(level.num_blocks):
      name = f'down_{level.name}'
      down.append((f'{name}_block_{j}', f'{name}_attention_{j}'))
    if coarser:
      down.append((f'down_{level.name}_to_{coarser.name}',))
  for level, finer in zip(levels[::-1], (*levels[-2::-1], None), strict=True):
    for j in range(level.num_blocks + 1):
      name = f'up_{level.name}'
      up.append((f'{name}_block_{j}', f'{name}_attention_{j}'))
    if finer:
      up.append((f'up_{level.name}_to_{finer.name}',))
  return down, up


def _inside(
  modules: dict[str, str], parts: dict[str, dict[str, str]]
) -> dict[str, str]:
  """Adds the parts of each module, such as norm1, to {ours: the file's}."""
  inner = {}
  for ours, theirs in modules.items():
    kind = 'attention' if 'attention' in ours else 'block'
    for part, their_part in parts[kind].items():
      inner[f'{ours}/{part}'] = f'{theirs}.{their_part}'
  return modules | inner


def _adm_names(net: UNet, levels: Sequence[Level]) -> dict[str, str]:
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
  down, up = _ways(levels)
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
  return _inside(names, {'block': block, 'attention': attention}) | {
    'noise/dense1': 'time_embed.0',
    'noise/dense2': 'time_embed.2',
    'label': 'label_emb',
    'norm_out': 'out.0',
    'conv_out': 'out.2',
  }


def _sr3_names(levels: Sequence[Level]) -> dict[str, str]:
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
  for prefix, way in zip(('downs', 'ups'), _ways(levels), strict=True):
    for i, entry in enumerate(way):
      if len(entry) == 2:
        names[entry[0]] = f'{prefix}.{i}.res_block'
        names[entry[1]] = f'{prefix}.{i}.attn'
      else:
        names[entry[0]] = f'{prefix}.{i}.conv'
  return _inside(names, {'block': block, 'attention': attention}) | {
    'conv_in': 'downs.0',
    'noise/dense1': 'noise_level_mlp.1',
    'noise/dense2': 'noise_level_mlp.3',
    'norm_out': 'final_conv.block.0',
    'conv_out': 'final_conv.block.3',
  }
