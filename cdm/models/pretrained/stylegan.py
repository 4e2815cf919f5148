"""Converts published PyTorch weights of StyleGAN's generator to ours.

The files are those that PULSE downloads: the synthesis network, the mapping
network, and `gaussian_fit.pt`, mean and standard deviation of the mapping's
outputs before their last leaky ReLU. A file must hold exactly the parameters of
the network that it is for.
"""

import os
import re
from collections.abc import Mapping

import flax
import jax
import jax.numpy as jnp
import numpy as np

from cdm.models.pretrained import pytorch_file
from cdm.models.stylegan import Generator

_KERNEL_NAMES = {'kernel': 'weight', 'bias': 'bias'}
_MOST_NAMES = 6  # in an error, which is one sentence
_NOISE = re.compile(r'blocks\.(\d{1,4})x\1\.epi1\.noise\.weight')
_STYLE = 'epi1.style_mod.lin.weight'
_DENSE = re.compile(r'dense\d{1,3}\.weight')


def read_generator(
  net: Generator,
  *,
  synthesis: str | os.PathLike,
  mapping: str | os.PathLike | None = None,
) -> dict:
  """Reads the published files of a generator.

  Args:
    net: the generator that the files are for.
    synthesis: path of the synthesis network's file.
    mapping: path of the mapping network's file; None for a generator without
      one.

  Returns:
    The parameters as nested dicts of float32 arrays.

  Raises:
    ValueError: a file is of another network; names its parameters.
    DamagedWeights: a file is no PyTorch state dict.
    OSError: a file cannot be read.
  """
  shapes = _shapes(net)
  paths = {'synthesis': synthesis, 'mapping': mapping}
  params = {}
  for part, names in _names(net).items():
    path = paths[part]
    if path is None:
      raise ValueError(
        f'The generator has a {part} network, and no file of it was given; '
        f'give it, or set model.mapping_layers=0.'
      )
    params |= convert(pytorch_file.read(path), names, shapes, path)
  return flax.traverse_util.unflatten_dict(params, sep='/')


def architecture(
  synthesis: Mapping[str, np.ndarray], mapping: Mapping[str, np.ndarray]
) -> dict[str, int]:
  """Returns the fields of the `Generator` that two files are for.

  Args:
    synthesis: {name: array} of the synthesis network's file.
    mapping: of the mapping network's file; empty for a generator without one.

  Raises:
    ValueError: the shapes are not those of a StyleGAN.
  """
  widths = {}
  for name, value in synthesis.items():
    if match := _NOISE.fullmatch(name):
      widths[int(match[1])] = value.size
  style = synthesis.get(f'blocks.4x4.{_STYLE}')
  last = max(widths, default=0)
  if style is None or style.ndim != 2 or last < 8:
    raise ValueError(
      'there is no StyleGAN in it, whose blocks are called blocks.4x4, '
      'blocks.8x8 and so on.'
    )
  most = max(widths.values())
  # Channels are bounded on the coarse sides, and halve on the fine ones.
  base = max(side * width for side, width in widths.items()) // 2
  expected = {side: min(2 * base // side, most) for side in widths}
  if widths != expected:
    side = next(side for side in widths if widths[side] != expected[side])
    raise ValueError(
      f'its block of {side} pixels has {widths[side]} channels, and '
      f'{expected[side]} were expected beside the others.'
    )
  return {
    'image_size': last,
    'latent_size': style.shape[1],
    'feature_base': base,
    'most_features': most,
    'mapping_layers': len([n for n in mapping if _DENSE.fullmatch(n)]),
  }


def read_fit(path: str | os.PathLike, latent_size: int) -> dict:
  """Reads `gaussian_fit.pt`.

  Args:
    path: path of the file.
    latent_size: E of the generator that it belongs to.

  Returns:
    {'mean': float32 [E], 'std': float32 [E]}.

  Raises:
    ValueError, DamagedWeights, OSError: see `read_generator`.
  """
  names = {'mean': 'mean', 'std': 'std'}
  shapes = dict.fromkeys(names, (latent_size,))
  return convert(pytorch_file.read(path), names, shapes, path)


def convert(
  state: Mapping[str, np.ndarray],
  names: Mapping[str, str],
  shapes: Mapping[str, tuple[int, ...]],
  path: str | os.PathLike,
) -> dict[str, np.ndarray]:
  """Takes the parameters of one file, in our names and layout.

  Args:
    state: {the file's name: array}.
    names: {our name: the file's}.
    shapes: {our name: shape}, of at least these names.
    path: the file, for messages.

  Returns:
    {our name: float32 array}.

  Raises:
    ValueError: parameters are missing, unknown or of another shape.
  """
  # The blur's kernel is stored in every block; it is the same for all.
  given = {n for n in state if not n.endswith('.intermediate.kernel')}
  wanted = set(names.values())
  for what, found in (
    ('lacks', wanted - given),
    ('also holds', given - wanted),
  ):
    if found:
      raise ValueError(
        f'{path} {what} {_few(sorted(found))}, so it is of another network; '
        'give the file of this one, or the model section of that network.'
      )
  params = {}
  for ours, theirs in names.items():
    value = _layout(np.asarray(state[theirs], np.float32), ours)
    if value.shape != shapes[ours]:
      raise ValueError(
        f'{path} has {theirs} of shape {list(state[theirs].shape)}, which is '
        f'{list(value.shape)} in our layout, but the network has '
        f'{list(shapes[ours])} ({ours}); give the model section of that '
        'network.'
      )
    params[ours] = value
  return params


def _few(names):
  more = len(names) - _MOST_NAMES
  return ', '.join(names[:_MOST_NAMES]) + (f' and {more} more' * (more > 0))


def _layout(value: np.ndarray, ours: str) -> np.ndarray:
  """Returns PyTorch's array in our layout."""
  if ours.endswith('/const'):
    return value.transpose(0, 2, 3, 1)[0]  # [1, C, 4, 4] -> [4, 4, C]
  if not ours.endswith('/kernel'):
    return value
  if value.ndim == 4:
    return value.transpose(2, 3, 1, 0)  # [O, I, h, w] -> [h, w, I, O]
  return value.T


def _shapes(net: Generator) -> dict[str, tuple[int, ...]]:
  """Returns {our name: shape} of the parameters, allocating none."""

  def init(key):
    n = net.num_layers
    w = jnp.zeros((1, n, net.latent_size))
    noise = [jnp.zeros((1, side, side)) for side in net.noise_sides]
    method = '__call__' if net.mapping_layers else 'image'
    given = w[:, 0] if net.mapping_layers else w
    return net.init(key, given, noise, method=method)['params']

  tree = jax.eval_shape(init, jax.random.key(0))
  flat = flax.traverse_util.flatten_dict(tree, sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def _names(net: Generator) -> dict[str, dict[str, str]]:
  """Returns {part: {our name: the file's name}}."""
  synthesis = _with_bias({'to_rgb': 'torgb'})
  for side in net.sides:
    ours, theirs = f'block_{side}', f'blocks.{side}x{side}'
    modules = {'conv': 'conv1', 'conv_up': 'conv0_up'}
    if side == net.sides[0]:
      synthesis |= {f'{ours}/{n}': f'{theirs}.{n}' for n in ('const', 'bias')}
      modules = {'conv': 'conv'}
    for i in (1, 2):
      modules[f'epilogue{i}/style'] = f'epi{i}.style_mod.lin'
      noise = f'{theirs}.epi{i}.noise.weight'
      synthesis[f'{ours}/epilogue{i}/noise'] = noise
    synthesis |= _with_bias(
      {f'{ours}/{a}': f'{theirs}.{b}' for a, b in modules.items()}
    )
  parts = {'synthesis': synthesis}
  if net.mapping_layers:
    dense = [f'dense{i}' for i in range(net.mapping_layers)]
    parts['mapping'] = _with_bias({name: name for name in dense})
  return {
    part: {f'{part}/{ours}': theirs for ours, theirs in names.items()}
    for part, names in parts.items()
  }


def _with_bias(modules):
  """Returns the kernel and bias of each module: {our name: the file's}."""
  return {
    f'{ours}/{a}': f'{theirs}.{b}'
    for ours, theirs in modules.items()
    for a, b in _KERNEL_NAMES.items()
  }
