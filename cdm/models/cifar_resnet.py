"""Defines the ResNet for CIFAR-10 of [He et al. 2016] sec. 4.2, for features.

Its published weights fit into a megabyte or three, and it sees 32 x 32 pixels
as they are, so that a Fréchet distance of small images can be computed without
Inception. A larger image is judged by its squares of 32 pixels.

A shortcut between maps of different sizes takes every second pixel and adds
channels of zeros on both sides (option A). Batch normalisation is folded into
the convolutions when the weights are read (`pretrained.cifar_resnet`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SIDE = 32
NUM_FEATURES, NUM_CLASSES = 64, 10
WIDTHS = (16, 32, 64)
# Of the levels of ImageNet, by which the published weights were trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRECISION = jax.lax.Precision.HIGHEST  # as of Inception


class CifarFeatures(NamedTuple):
  """What the network makes of one batch of squares.

  Attributes:
    pool: [B, 64], the mean over the last feature map.
    logits: [B, 10].
  """

  pool: jax.Array
  logits: jax.Array


class CifarResNet(nn.Module):
  """The network; with n blocks per level it is ResNet-(6 n + 2).

  Attributes:
    blocks: n.
  """

  blocks: int

  @nn.compact
  def __call__(self, image: jax.Array) -> CifarFeatures:
    """image: uint8 or levels 0..255 [B, 32, 32, 3] -> CifarFeatures."""
    x = image.astype(jnp.float32) / 255.0
    x = (x - _per_channel(MEAN)) / _per_channel(STD)
    x = nn.relu(_conv(WIDTHS[0], 'conv1')(x))
    for level, width in enumerate(WIDTHS, 1):
      for i in range(self.blocks):
        strides = 2 if level > 1 and i == 0 else 1
        name = f'layer{level}_{i}'
        h = nn.relu(_conv(width, f'{name}_conv1', strides)(x))
        h = _conv(width, f'{name}_conv2')(h)
        more = (width - x.shape[-1]) // 2
        short = x[:, ::strides, ::strides]
        x = nn.relu(h + jnp.pad(short, ((0, 0),) * 3 + ((more, more),)))
    pool = x.mean(axis=(1, 2))
    dense = nn.Dense(NUM_CLASSES, precision=PRECISION, name='linear')
    return CifarFeatures(pool, dense(pool))


def _per_channel(values: Sequence[float]) -> np.ndarray:
  return np.asarray(values, np.float32)[None, None, None]


def _conv(features: int, name: str, strides: int = 1) -> nn.Conv:
  return nn.Conv(
    features,
    (3, 3),
    strides,
    padding=((1, 1), (1, 1)),
    precision=PRECISION,
    name=name,
  )


def squares(image: jax.Array) -> jax.Array:
  """Cuts images into squares: [B, H, W, 3] -> [B, H/32 * W/32, 32, 32, 3].

  Raises:
    ValueError: a side is no multiple of 32.
  """
  b, h, w, c = image.shape
  if h % SIDE or w % SIDE:
    raise ValueError(
      f'Images of {w}x{h} pixels cannot be cut into squares of {SIDE}; the '
      'sides must be multiples of it.'
    )
  x = image.reshape(b, h // SIDE, SIDE, w // SIDE, SIDE, c)
  return x.swapaxes(2, 3).reshape(b, -1, SIDE, SIDE, c)
