"""Computes the features of MobileNetV2 of ImageNet, for distances of crops.

The file is an .npz, or a zip that holds one, with weights in 8 bits and the
program that runs them: a list of convolutions, depthwise convolutions, sums and
the mean over pixels, whose output are the 1280 features. A Fréchet distance of
these is a stand-in for that of Inception-v3: it orders sets of crops of one
kind, and compares with no published number.
"""

import functools
import io
import json
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

NAME = 'mobilenet_v2_imagenet_int8.npz'


class MobileNet:
  """The network; called, it returns the features of images."""

  def __init__(self, path: pathlib.Path, batch: int = 100):
    """Reads the weights.

    Args:
      path: the .npz, or a zip that holds NAME in some folder.
      batch: images that are looked at together.

    Raises:
      ValueError: the zip has no such file.
    """
    self._batch = batch
    arrays = np.load(io.BytesIO(_read(path)))
    self._program = json.loads(bytes(arrays['program']))
    self._weights = {
      step['name']: (_kernel(arrays, step), arrays[step['name'] + '_b'])
      for step in self._program
      if 'name' in step
    }
    self._apply = jax.jit(functools.partial(_features, self._program))

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Returns float32 [N, 1280].

    Args:
      images: uint8 [N, S, S, 3] or float32 of the same range.
    """
    found = []
    for first in range(0, len(images), self._batch):
      some = np.asarray(images[first : first + self._batch], np.float32)
      more = self._batch - len(some)  # so that one program does
      filled = np.pad(some, ((0, more), *((0, 0),) * 3))
      y = self._apply(self._weights, jnp.asarray(filled / 127.5 - 1.0))
      found.append(np.asarray(y)[: len(some)])
    return np.concatenate(found)


def _read(path):
  if path.suffix != '.zip':
    return path.read_bytes()
  with zipfile.ZipFile(path) as archive:
    for name in archive.namelist():
      if name.rsplit('/', 1)[-1] == NAME:
        return archive.read(name)
  raise ValueError(f'{path} holds no {NAME}; give the file itself.')


def _kernel(arrays, step):
  """Returns a kernel as float32 HWIO."""
  name = step['name']
  weights = arrays[name + '_w'].astype(np.float32)
  shape = [1] * 4
  shape[step['wdim']] = -1
  weights = weights * arrays[name + '_ws'].reshape(shape)
  # Depthwise kernels are [1, H, W, C] in the file, others OHWI.
  return weights.transpose((1, 2, 0, 3) if step['op'] == 'dw' else (1, 2, 3, 0))


def _features(program, weights, x):
  """Runs the program up to the mean over pixels."""
  values = {program[0]['y']: x}
  for step in program[1:]:
    given = values[step['x']]
    if step['op'] == 'add':
      y = given + values[step['x2']]
    elif step['op'] == 'mean':
      return given.mean(axis=(1, 2))
    else:
      kernel, bias = weights[step['name']]
      groups = given.shape[-1] if step['op'] == 'dw' else 1
      y = jax.lax.conv_general_dilated(
        given,
        kernel,
        (step['stride'],) * 2,
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=groups,
      )
      y = y + bias[None, None, None]
      y = jnp.clip(y, 0.0, 6.0) if step['act'] == 'relu6' else y
    values[step['y']] = y
  raise ValueError('the program has no mean over pixels')
