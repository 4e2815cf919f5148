"""Weights of public PyTorch code as our parameters: names and layouts.

PyTorch keeps a convolution as [out, in, h, w] and a dense layer as [out, in];
ours are [h, w, in, out] and [in, out]. What a file must hold follows from the
network, so a file of another network is refused by its first wrong parameter.
Both importers are reached by `cdm import` once there is that command.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np

from cdm.models.unet_plan import plan

ATTENTION_ORDER = ('legacy', 'new')

# silu(z + this) is z + this to float32's last digit, for any z of a network.
_LINEAR_SILU = 20.0


def adm_to_cdm(state, net, *, image_size, attention_order='legacy'):
  """Weights of [ADM]'s or [IDDPM]'s U-Net as a tree for ours.

  Args:
    state: {name: array}, PyTorch's names and layouts. One with a low-res
      condition has twice the input channels.
    net: the `UNet` they are for.
    image_size: (H, W) of its images.
    attention_order: how the file orders the channels of q, k and v: 'legacy'
      by head first, 'new' by q, k, v first ([ADM] use_new_attention_order).

  Returns:
    The parameters as nested dicts of float32 arrays, `{'params': this}`.

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
    num_heads = heads.get(value.shape[-1] // 3)  # None: of another shape
    if not module.endswith('/qkv') or attention_order == 'new' or not num_heads:
      return value
    by_head = value.reshape(*value.shape[:-1], num_heads, 3, -1)
    return np.swapaxes(by_head, -3, -2).reshape(value.shape)

  lowres_channels = _in_channels(state, 'input_blocks.0.0') - net.out_channels
  shapes = _shapes(net, image_size, lowres_channels)
  return _convert(state, shapes, _adm_names(net, levels), fit)


def sr3_to_cdm(state, net, *, image_size):
  """Weights of the unofficial PyTorch SR3's U-Net as a tree for ours.

  That network projects the noise embedding without an activation and to
  `features` only. Ours is the same function once the embedding is moved to
  where silu is the identity and the projection moves it back, which is exact
  to a few 1e-6 in float32 but not in bfloat16. Its attention has one head and
  no bias in qkv.

  Args:
    state: {name: array}, PyTorch's names and layouts.
    net: the `UNet`: resample 'conv', embedding 'additive', condition_on
      'sqrt_alpha_bar', condition_scale 1.0.
    image_size: (H, W) of its images.

  Returns:
    The parameters as nested dicts of float32 arrays, `{'params': this}`.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  levels = plan(net, image_size)
  lowres_channels = _in_channels(state, 'downs.0') - net.out_channels
  width = 4 * net.features

  def fit(module, leaf, value):
    if module == 'conv_in' and leaf == 'kernel':  # lowres first, theirs
      return np.roll(value, -lowres_channels, axis=2)
    if module == 'noise/dense1' and leaf == 'kernel':  # [sin, cos], theirs
      return np.roll(value, net.features // 2, axis=0)
    if module == 'noise/dense2':
      value = value + _LINEAR_SILU if leaf == 'bias' else value
      more = [(0, 0)] * (value.ndim - 1) + [(0, width - value.shape[-1])]
      return np.pad(value, more)
    if module.endswith('/shift') and leaf == 'kernel':
      return np.pad(value, ((0, width - value.shape[0]), (0, 0)))
    return value

  names = _sr3_names(levels)
  state = dict(state)
  for module, theirs in names.items():
    kernel = state.get(f'{theirs}.weight')
    if kernel is None:
      continue
    if module.endswith('/qkv'):
      state[f'{theirs}.bias'] = np.zeros(len(kernel))
    if module.endswith('/shift'):
      moved = _LINEAR_SILU * np.sum(kernel, axis=1, dtype=np.float64)
      state[f'{theirs}.bias'] = state[f'{theirs}.bias'] - moved
  return _convert(state, _shapes(net, image_size, lowres_channels), names, fit)


def _convert(state, shapes, names, fit):
  """-> nested dict of every parameter in `shapes`, taken from `state`.

  Args:
    state: {their name: array}.
    shapes: {(our module, leaf): shape}.
    names: {our module: their module}.
    fit: (our module, leaf, array in our layout) -> array in our order.
  """
  params, used = {}, set()
  for (module, leaf), shape in shapes.items():
    if module not in names:
      raise ValueError(f'{module} has no counterpart in this kind of file.')
    theirs = f'{names[module]}.{"bias" if leaf == "bias" else "weight"}'
    if theirs not in state:
      raise ValueError(f'{theirs} is missing; it is our {module}/{leaf}.')
    used.add(theirs)
    value = _layout(np.asarray(state[theirs], np.float32), leaf)
    value = fit(module, leaf, value)
    if value.shape != shape:
      raise ValueError(
        f'{theirs} is {value.shape} in our layout; our {module}/{leaf} is '
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


def _layout(value, leaf):
  """-> PyTorch's array in our layout."""
  if leaf != 'kernel':
    return value
  if value.ndim == 4 and value.shape[2:] != (1, 1):
    return value.transpose(2, 3, 1, 0)  # [O, I, h, w] -> [h, w, I, O]
  return value.reshape(value.shape[:2]).T  # [O, I], [O, I, 1] or [O, I, 1, 1]


def _in_channels(state, first):
  name = f'{first}.weight'
  if name not in state:
    raise ValueError(f'{name} is missing; it is our conv_in/kernel.')
  return state[name].shape[1]


def _shapes(net, image_size, lowres_channels):
  """-> {(module, leaf): shape} of every parameter; allocates nothing."""

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


def _ways(levels):
  """-> our modules on the way down and on the way up, in order.

  An entry is (block, its attention) or (resampling,) or (conv_in,).
  """
  down, up = [('conv_in',)], []
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


def _inside(modules, parts):
  """{our module: theirs} with the parts of each added: norm1 and so on."""
  inner = {}
  for ours, theirs in modules.items():
    kind = 'attention' if 'attention' in ours else 'block'
    for part, their_part in parts[kind].items():
      inner[f'{ours}/{part}'] = f'{theirs}.{their_part}'
  return modules | inner


def _adm_names(net, levels):
  """-> {our module: their module}."""
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
    # Theirs closes the list of the level's last block.
    part = 1 + attends[entry[0].split('_')[1]]
    names[entry[0]] = f'output_blocks.{i}.{part}{"" if biggan else ".conv"}'
  return _inside(names, {'block': block, 'attention': attention}) | {
    'noise/dense1': 'time_embed.0',
    'noise/dense2': 'time_embed.2',
    'label': 'label_emb',
    'norm_out': 'out.0',
    'conv_out': 'out.2',
  }


def _sr3_names(levels):
  """-> {our module: their module}."""
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
  for theirs, way in zip(('downs', 'ups'), _ways(levels), strict=True):
    for i, entry in enumerate(way):
      if len(entry) == 2:
        names[entry[0]] = f'{theirs}.{i}.res_block'
        names[entry[1]] = f'{theirs}.{i}.attn'
      else:
        names[entry[0]] = f'{theirs}.{i}.conv'
  return _inside(names, {'block': block, 'attention': attention}) | {
    'conv_in': 'downs.0',
    'noise/dense1': 'noise_level_mlp.1',
    'noise/dense2': 'noise_level_mlp.3',
    'norm_out': 'final_conv.block.0',
    'conv_out': 'final_conv.block.3',
  }
