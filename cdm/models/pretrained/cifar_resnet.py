"""Reads the published weights of CIFAR-10's ResNets into our parameters.

The files are those of akamaster's pytorch_resnet_cifar10 (resnet20.th to
resnet1202.th), or an .npz with the same names. Batch normalisation is folded
into each convolution, in float64.
"""

import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from cdm.models.cifar_resnet import NUM_CLASSES, NUM_FEATURES, WIDTHS
from cdm.models.pretrained import pytorch_file
from cdm.models.pretrained.damaged_weights import DamagedWeights

EPSILON = 1e-5  # of batch normalisation
_BLOCK = re.compile(r'layer1\.(\d+)\.conv1\.weight')
_STATISTICS = ('weight', 'bias', 'running_mean', 'running_var')


def read(path: str | os.PathLike) -> tuple[int, dict]:
  """Reads the weights.

  Args:
    path: PyTorch's .th, .pt or .pth, or an .npz.

  Returns:
    (blocks per level, parameters of `CifarResNet`).

  Raises:
    DamagedWeights: the file holds another network, or is damaged.
  """
  if pathlib.Path(path).suffix == '.npz':
    arrays = _read_npz(path)
  else:
    arrays = pytorch_file.read(path, 'state_dict')  # beside an accuracy
  try:
    return from_pytorch(arrays)
  except ValueError as error:
    raise DamagedWeights(
      f'{path}: {error} Give resnet20.th to resnet1202.th of '
      'pytorch_resnet_cifar10, or an .npz with its names.'
    ) from None


def _read_npz(path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as e:
    raise DamagedWeights(
      f'{path} cannot be read as an .npz ({e}); it may be cut off or of '
      'another kind, so fetch it again.'
    ) from e


def from_pytorch(arrays: Mapping[str, np.ndarray]) -> tuple[int, dict]:
  """Converts the arrays of the published network, see `read`.

  Raises:
    ValueError: a parameter is missing, unknown, not finite or of another shape.
  """
  state = {
    name.removeprefix('module.'): value
    for name, value in arrays.items()
    if not name.endswith('num_batches_tracked')
  }
  found = [m for m in map(_BLOCK.fullmatch, state) if m]
  if not found:
    raise ValueError(
      'layer1.0.conv1.weight is missing: these are not the weights of a '
      'ResNet for CIFAR-10.'
    )
  blocks = 1 + max(int(match[1]) for match in found)
  params = {}

  def take(name, shape):
    value = state.pop(name, None)
    if value is None or value.shape != shape or not np.isfinite(value).all():
      what = 'missing' if value is None else f'{value.shape}, or not finite'
      raise ValueError(f'{name} is {what}; {shape} was expected.')
    return np.asarray(value, np.float64)

  def fold(convolution, norm, width, channels, name):
    kernel = take(f'{convolution}.weight', (width, channels, 3, 3))
    gamma, beta, mean, variance = (
      take(f'{norm}.{part}', (width,)) for part in _STATISTICS
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    params[name] = {
      'kernel': (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
      'bias': (beta - mean * scale).astype(np.float32),
    }

  fold('conv1', 'bn1', WIDTHS[0], 3, 'conv1')
  channels = WIDTHS[0]
  for level, width in enumerate(WIDTHS, 1):
    for i in range(blocks):
      theirs, ours = f'layer{level}.{i}', f'layer{level}_{i}'
      for n, inputs in ((1, channels), (2, width)):
        fold(
          f'{theirs}.conv{n}', f'{theirs}.bn{n}', width, inputs,
          f'{ours}_conv{n}',
        )  # fmt: skip
      channels = width
  kernel = take('linear.weight', (NUM_CLASSES, NUM_FEATURES))
  params['linear'] = {
    'kernel': kernel.T.astype(np.float32),
    'bias': take('linear.bias', (NUM_CLASSES,)).astype(np.float32),
  }
  if state:
    raise ValueError(
      f'The file has {len(state)} parameters that the network has no place '
      f'for, first {next(iter(state))}.'
    )
  return blocks, params
