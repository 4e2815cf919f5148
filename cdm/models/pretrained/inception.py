"""Reads the published weights of FID's Inception-v3 into our parameters.

Two files hold the same numbers: the frozen TensorFlow graph of December 2015
(alone or in its .tgz) and its PyTorch port. Batch normalisation is folded into
each convolution, in float64.
"""

import gzip
import io
import os
import pathlib
import tarfile
from collections.abc import Callable, Mapping

import flax
import jax
import numpy as np

from cdm.models.inception import Inception
from cdm.models.pretrained import pytorch_file, tensorflow_graph
from cdm.models.pretrained.damaged_weights import DamagedWeights

# The PyTorch port, as pytorch-fid publishes it and torch-fidelity uses it.
URL = (
  'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
  'pt_inception-2015-12-05-6726825d.pth'
)
SHA256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
GRAPH = 'classify_image_graph_def.pb'
MOST_UNPACKED = 1 << 27  # bytes; the published .tgz unpacks to 96 MB
EPSILON = 1e-3  # epsilon of batch normalisation
# For each block, our (and PyTorch's) name of a convolution and its scope in the
# TensorFlow graph. Blocks without an entry use that of their first digit.
_TOWERS = {
  '5': {
    'branch1x1': 'conv',
    'branch5x5_1': 'tower/conv',
    'branch5x5_2': 'tower/conv_1',
    'branch3x3dbl_1': 'tower_1/conv',
    'branch3x3dbl_2': 'tower_1/conv_1',
    'branch3x3dbl_3': 'tower_1/conv_2',
    'branch_pool': 'tower_2/conv',
  },
  '6a': {
    'branch3x3': 'conv',
    'branch3x3dbl_1': 'tower/conv',
    'branch3x3dbl_2': 'tower/conv_1',
    'branch3x3dbl_3': 'tower/conv_2',
  },
  '6': {
    'branch1x1': 'conv',
    'branch7x7_1': 'tower/conv',
    'branch7x7_2': 'tower/conv_1',
    'branch7x7_3': 'tower/conv_2',
    'branch7x7dbl_1': 'tower_1/conv',
    'branch7x7dbl_2': 'tower_1/conv_1',
    'branch7x7dbl_3': 'tower_1/conv_2',
    'branch7x7dbl_4': 'tower_1/conv_3',
    'branch7x7dbl_5': 'tower_1/conv_4',
    'branch_pool': 'tower_2/conv',
  },
  '7a': {
    'branch3x3_1': 'tower/conv',
    'branch3x3_2': 'tower/conv_1',
    'branch7x7x3_1': 'tower_1/conv',
    'branch7x7x3_2': 'tower_1/conv_1',
    'branch7x7x3_3': 'tower_1/conv_2',
    'branch7x7x3_4': 'tower_1/conv_3',
  },
  '7': {
    'branch1x1': 'conv',
    'branch3x3_1': 'tower/conv',
    'branch3x3_2a': 'tower/mixed/conv',
    'branch3x3_2b': 'tower/mixed/conv_1',
    'branch3x3dbl_1': 'tower_1/conv',
    'branch3x3dbl_2': 'tower_1/conv_1',
    'branch3x3dbl_3a': 'tower_1/mixed/conv',
    'branch3x3dbl_3b': 'tower_1/mixed/conv_1',
    'branch_pool': 'tower_2/conv',
  },
}
_STEM = ('1a_3x3', '2a_3x3', '2b_3x3', '3b_1x1', '4a_3x3')
_BLOCKS = '5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c'.split()


def read(path: str | os.PathLike) -> dict:
  """Reads the weights from either published file.

  Args:
    path: PyTorch's .pth, the frozen graph .pb, or the .tgz that holds the
      graph.

  Returns:
    Parameters of `Inception` as nested dicts of float32 arrays; apply them as
    `{'params': parameters}`.

  Raises:
    DamagedWeights: the file is none of these, or holds another network; the
      message names the first difference.
  """
  path = pathlib.Path(path)
  if path.name.endswith(('.tgz', '.tar.gz')):
    assemble = from_tensorflow
    arrays = tensorflow_graph.constants(_unpacked(path), f'{path}')
  elif path.suffix == '.pb':
    assemble = from_tensorflow
    arrays = tensorflow_graph.constants(path.read_bytes(), f'{path}')
  else:
    assemble, arrays = from_pytorch, pytorch_file.read(path)
  try:
    params = assemble(arrays)
  except ValueError as error:
    raise DamagedWeights(
      f'{path}: {error} Give {URL.rpartition("/")[2]} (SHA-256 '
      f'{SHA256[:8]}...) or {GRAPH}.'
    ) from None
  leaves = jax.tree.leaves(params)
  if not all(np.isfinite(leaf).all() for leaf in leaves):
    raise DamagedWeights(
      f'{path} has weights that are not finite: it is damaged. Fetch it again.'
    )
  return params


def from_pytorch(state: dict[str, np.ndarray]) -> dict:
  """Converts the arrays of the PyTorch port.

  Args:
    state: {PyTorch's name: array}.

  Returns:
    Parameters of `Inception`, see `read`.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  state = {
    name: value
    for name, value in state.items()
    # The auxiliary classifier of training and a step counter are not used here.
    if not name.startswith('AuxLogits.')
    and not name.endswith('num_batches_tracked')
  }

  def convolution(module):
    names = ('weight', 'bias', 'running_mean', 'running_var')
    bn = [take_array(state, f'{module}.bn.{name}') for name in names]
    kernel = take_array(state, f'{module}.conv.weight')
    return kernel.transpose(2, 3, 1, 0), bn

  fc = take_array(state, 'fc.weight').T, take_array(state, 'fc.bias')
  return _assemble(convolution, fc, state)


def from_tensorflow(constants: Mapping[str, np.ndarray]) -> dict:
  """Converts the constants of the frozen TensorFlow graph.

  Args:
    constants: {name of a constant: array}; constants that are not parameters of
      the network are ignored.

  Returns:
    Parameters of `Inception`, see `read`.

  Raises:
    ValueError: a parameter is missing or of another shape.
  """
  names = tensorflow_names()
  state = dict(constants)

  def convolution(module):
    scope = names[module]
    parts = ('gamma', 'beta', 'moving_mean', 'moving_variance')
    bn = [take_array(state, f'{scope}/batchnorm/{part}') for part in parts]
    return take_array(state, f'{scope}/conv2d_params'), bn

  fc = take_array(state, 'softmax/weights'), take_array(state, 'softmax/biases')
  return _assemble(convolution, fc, {})  # the graph has other constants too


def tensorflow_names() -> dict[str, str]:
  """Returns {our module of a convolution: its scope in the frozen graph}."""
  names = {}
  for i, name in enumerate(_STEM):
    names[f'Conv2d_{name}'] = f'conv_{i}' if i else 'conv'
  for i, block in enumerate(_BLOCKS):
    scope = f'mixed_{i}' if i else 'mixed'
    towers = _TOWERS.get(block) or _TOWERS[block[0]]
    for ours, theirs in towers.items():
      names[f'Mixed_{block}.{ours}'] = f'{scope}/{theirs}'
  return names


def take_array(state: dict[str, np.ndarray], name: str) -> np.ndarray:
  """Removes an array from the dict and returns it, as it is stored.

  Raises:
    ValueError: there is no array of that name.
  """
  if name not in state:
    raise ValueError(
      f"{name} is missing: these are not the weights of FID's Inception-v3."
    )
  return state.pop(name)


def _assemble(
  convolution: Callable[[str], tuple],
  fc: tuple[np.ndarray, np.ndarray],
  rest: dict[str, np.ndarray],
) -> dict:
  """Folds the normalisations and builds the parameters of `Inception`.

  Args:
    convolution: `(our module) -> (kernel [h, w, in, out], (gamma, beta, mean,
      variance))`.
    fc: kernel [in, out] and bias of the last layer.
    rest: arrays of the file that `convolution` takes out one by one; any that
      are left belong to another network and are refused.

  Returns:
    Nested dicts of float32 arrays, checked against the shapes of `Inception`.
  """
  shapes = _shapes()
  params: dict[tuple[str, ...], np.ndarray] = {}

  def checked(value, name, shape):
    # Before any arithmetic: arrays of other shapes might together make one that
    # is larger than both.
    if value.shape != shape:
      raise ValueError(
        f"{'/'.join(name)} is {value.shape} in the file; FID's "
        f'Inception-v3 has {shape}.'
      )
    return np.asarray(value, np.float64)

  for name, value in zip((('fc', 'kernel'), ('fc_bias',)), fc, strict=True):
    params[name] = checked(value, name, shapes[name])
  for module in tensorflow_names():
    kernel, statistics = convolution(module)
    name = (*module.split('.'), 'conv', 'kernel')
    kernel = checked(kernel, name, shapes[name])
    name = (*name[:-1], 'bias')
    gamma, beta, mean, variance = (
      checked(value, name, shapes[name]) for value in statistics
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    params[*name[:-1], 'kernel'] = kernel * scale
    params[name] = beta - mean * scale
  if rest:
    raise ValueError(
      f'The file has {len(rest)} parameters that Inception-v3 has no place '
      f'for, first {next(iter(rest))}.'
    )
  params = {name: params[name].astype(np.float32) for name in shapes}
  return flax.traverse_util.unflatten_dict(params)


def _shapes() -> dict[tuple[str, ...], tuple[int, ...]]:
  """Returns {path of a parameter: shape} without allocating parameters."""
  image = jax.ShapeDtypeStruct((1, 299, 299, 3), np.uint8)
  made = jax.eval_shape(Inception().init, jax.random.key(0), image)
  tree = flax.traverse_util.flatten_dict(made['params'])
  return {name: leaf.shape for name, leaf in tree.items()}


def _unpacked(path: pathlib.Path) -> bytes:
  """Returns the frozen graph out of its .tgz."""
  try:
    with gzip.open(path) as stream:
      with tarfile.open(fileobj=_Bounded(stream), mode='r|') as archive:
        for member in archive:
          if pathlib.PurePath(member.name).name != GRAPH:
            continue
          # A sparse member may be any number of zeros, without their bytes.
          if member.isreg() and not member.issparse():
            file = archive.extractfile(member)
            assert file is not None  # it is a regular member
            return file.read()
  except (DamagedWeights, MemoryError):
    raise
  except Exception as error:  # tarfile and gzip raise several types
    if isinstance(error, OSError) and error.errno:
      raise
    reason = (str(error) or type(error).__name__).splitlines()[0]
    raise DamagedWeights(
      f'{path} cannot be unpacked ({reason}); fetch it again.'
    ) from error
  raise DamagedWeights(f'{path} holds no {GRAPH}.')


class _Bounded(io.RawIOBase):
  """Reads a stream, but not more than the published archive unpacks to."""

  def __init__(self, stream: gzip.GzipFile):
    self._stream, self._left = stream, MOST_UNPACKED

  def read(self, size: int = -1) -> bytes:
    data = self._stream.read(min(size, self._left + 1) if size >= 0 else -1)
    self._left -= len(data)
    if self._left < 0:
      raise ValueError(f'it unpacks to more than {MOST_UNPACKED:,} bytes')
    return data
