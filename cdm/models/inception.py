"""Defines the Inception-v3 network of 2015 that FID uses, [Heusel et al. 2017].

This network differs from that of later papers: its average pools leave padding
out of the mean, the last block pools by maximum, there are 1,008 logits, and
images are resized to 299 as TensorFlow 1 did, with pixel corners aligned at the
top left. Modules have the names of the PyTorch port; batch normalisation is
folded into the convolutions when the weights are read (`pretrained.inception`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SIZE = 299
NUM_FEATURES, NUM_LOGITS, NUM_SPATIAL = 2048, 1008, 7
# Products are computed in full float32 on every backend, because TPUs and GPUs
# round them by default.
PRECISION = jax.lax.Precision.HIGHEST


class Features(NamedTuple):
  """The features of one batch that metrics use, on a device or on the host.

  Attributes:
    pool: [B, 2048], for FID, KID, precision and recall.
    spatial: [B, 2023], 17 x 17 x 7 of block 6d, for sFID.
    logits: [B, 1008], bias included, for the Inception Score.
    logits_unbiased: [B, 1008], without the bias, for the Inception Score as
      torch-fidelity computes it.
  """

  pool: jax.Array | np.ndarray
  spatial: jax.Array | np.ndarray
  logits: jax.Array | np.ndarray
  logits_unbiased: jax.Array | np.ndarray


class Inception(nn.Module):
  """Inception-v3, from images to `Features`."""

  @nn.compact
  def __call__(self, image: jax.Array) -> Features:
    """image: uint8 or levels 0..255 [B, H, W, 3] -> Features."""
    x = resize_tf1(image.astype(jnp.float32), SIZE)
    x = (x - 128.0) / 128.0
    x = Conv(32, 3, strides=2, padding='VALID', name='Conv2d_1a_3x3')(x)
    x = Conv(32, 3, padding='VALID', name='Conv2d_2a_3x3')(x)
    x = Conv(64, 3, name='Conv2d_2b_3x3')(x)
    x = max_pool(x)
    self.sow('intermediates', '64', x)
    x = Conv(80, 1, name='Conv2d_3b_1x1')(x)
    x = Conv(192, 3, padding='VALID', name='Conv2d_4a_3x3')(x)
    x = max_pool(x)
    self.sow('intermediates', '192', x)
    for name, features in (('5b', 32), ('5c', 64), ('5d', 64)):
      x = Mixed5(features, name=f'Mixed_{name}')(x)
    x = Mixed6a(name='Mixed_6a')(x)
    for name, features in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
      x, spatial = Mixed6(features, name=f'Mixed_{name}')(x)
      if name == '6d':
        pixels = spatial[..., :NUM_SPATIAL]  # [B, 17, 17, 7]
    self.sow('intermediates', '768', x)
    x = Mixed7a(name='Mixed_7a')(x)
    x = Mixed7(average_pool, name='Mixed_7b')(x)
    x = Mixed7(max_pool_same, name='Mixed_7c')(x)
    pool = x.mean(axis=(1, 2))  # [B, 2048]
    dense = nn.Dense(NUM_LOGITS, use_bias=False, precision=PRECISION, name='fc')
    unbiased = dense(pool)
    bias = self.param('fc_bias', nn.initializers.zeros, (NUM_LOGITS,))
    return Features(
      pool=pool,
      spatial=pixels.reshape(len(pixels), -1),
      logits=unbiased + bias[None],
      logits_unbiased=unbiased,
    )


class Conv(nn.Module):
  """A convolution with a folded batch normalisation, then ReLU."""

  features: int
  kernel_size: int | Sequence[int]
  strides: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> [B, H', W', features]."""
    size = self.kernel_size
    size = (size, size) if isinstance(size, int) else size
    conv = nn.Conv(
      self.features,
      size,
      strides=self.strides,
      padding=self.padding,
      precision=PRECISION,
      name='conv',
    )
    return nn.relu(conv(x))


class Mixed5(nn.Module):
  """One of the blocks 5b to 5d, at 35 px."""

  features: int  # of the pooled branch

  @nn.compact
  def __call__(self, x):
    """x: [B, 35, 35, C] -> [B, 35, 35, 224 + features]."""
    one = Conv(64, 1, name='branch1x1')(x)
    five = Conv(48, 1, name='branch5x5_1')(x)
    five = Conv(64, 5, name='branch5x5_2')(five)
    three = Conv(64, 1, name='branch3x3dbl_1')(x)
    three = Conv(96, 3, name='branch3x3dbl_2')(three)
    three = Conv(96, 3, name='branch3x3dbl_3')(three)
    pool = Conv(self.features, 1, name='branch_pool')(average_pool(x))
    return jnp.concatenate([one, five, three, pool], axis=-1)


class Mixed6a(nn.Module):
  """The block 6a, from 35 to 17 px."""

  @nn.compact
  def __call__(self, x):
    """x: [B, 35, 35, 288] -> [B, 17, 17, 768]."""
    halve = functools.partial(Conv, strides=2, padding='VALID')
    one = halve(384, 3, name='branch3x3')(x)
    two = Conv(64, 1, name='branch3x3dbl_1')(x)
    two = Conv(96, 3, name='branch3x3dbl_2')(two)
    two = halve(96, 3, name='branch3x3dbl_3')(two)
    return jnp.concatenate([one, two, max_pool(x)], axis=-1)


class Mixed6(nn.Module):
  """One of the blocks 6b to 6e, at 17 px."""

  features: int  # inside the 7x7 branches

  @nn.compact
  def __call__(self, x):
    """x: [B, 17, 17, 768] -> (same shape, its first branch [..., 192])."""
    n = self.features
    one = Conv(192, 1, name='branch1x1')(x)
    seven = Conv(n, 1, name='branch7x7_1')(x)
    seven = Conv(n, (1, 7), name='branch7x7_2')(seven)
    seven = Conv(192, (7, 1), name='branch7x7_3')(seven)
    twice = Conv(n, 1, name='branch7x7dbl_1')(x)
    twice = Conv(n, (7, 1), name='branch7x7dbl_2')(twice)
    twice = Conv(n, (1, 7), name='branch7x7dbl_3')(twice)
    twice = Conv(n, (7, 1), name='branch7x7dbl_4')(twice)
    twice = Conv(192, (1, 7), name='branch7x7dbl_5')(twice)
    pool = Conv(192, 1, name='branch_pool')(average_pool(x))
    return jnp.concatenate([one, seven, twice, pool], axis=-1), one


class Mixed7a(nn.Module):
  """The block 7a, from 17 to 8 px."""

  @nn.compact
  def __call__(self, x):
    """x: [B, 17, 17, 768] -> [B, 8, 8, 1280]."""
    halve = functools.partial(Conv, strides=2, padding='VALID')
    three = Conv(192, 1, name='branch3x3_1')(x)
    three = halve(320, 3, name='branch3x3_2')(three)
    seven = Conv(192, 1, name='branch7x7x3_1')(x)
    seven = Conv(192, (1, 7), name='branch7x7x3_2')(seven)
    seven = Conv(192, (7, 1), name='branch7x7x3_3')(seven)
    seven = halve(192, 3, name='branch7x7x3_4')(seven)
    return jnp.concatenate([three, seven, max_pool(x)], axis=-1)


class Mixed7(nn.Module):
  """One of the blocks 7b and 7c, at 8 px, which differ in how they pool."""

  pool: Callable[[jax.Array], jax.Array]  # [B, H, W, C] -> same shape

  @nn.compact
  def __call__(self, x):
    """x: [B, 8, 8, C] -> [B, 8, 8, 2048]."""
    one = Conv(320, 1, name='branch1x1')(x)
    three = Conv(384, 1, name='branch3x3_1')(x)
    twice = Conv(448, 1, name='branch3x3dbl_1')(x)
    twice = Conv(384, 3, name='branch3x3dbl_2')(twice)
    parts = [
      one,
      Conv(384, (1, 3), name='branch3x3_2a')(three),
      Conv(384, (3, 1), name='branch3x3_2b')(three),
      Conv(384, (1, 3), name='branch3x3dbl_3a')(twice),
      Conv(384, (3, 1), name='branch3x3dbl_3b')(twice),
      Conv(192, 1, name='branch_pool')(self.pool(x)),
    ]
    return jnp.concatenate(parts, axis=-1)


def max_pool(x: jax.Array) -> jax.Array:
  """Pools 3x3 with stride 2, no padding; H and W become (H - 1) // 2."""
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding='VALID')


def max_pool_same(x: jax.Array) -> jax.Array:
  """Pools 3x3 by maximum with stride 1: [B, H, W, C] -> same shape."""
  return nn.max_pool(x, (3, 3), strides=(1, 1), padding='SAME')


def average_pool(x: jax.Array) -> jax.Array:
  """Pools 3x3 by mean, padding left out: [B, H, W, C] -> same shape."""
  return nn.avg_pool(
    x, (3, 3), strides=(1, 1), padding='SAME', count_include_pad=False
  )


def resize_tf1(x: jax.Array, size: int) -> jax.Array:
  """Resizes as `tf.image.resize_bilinear` of TensorFlow 1 does, in float32.

  Pixel (i, j) is read bilinearly at (i h / size, j w / size): there are no
  half-pixel centres and no antialiasing, and the last row and column are
  repeated.

  Args:
    x: [B, h, w, C].
    size: both sides of the result, in pixels.

  Returns:
    [B, size, size, C].
  """
  for axis in (1, 2):
    length = x.shape[axis]
    if length == size:
      continue
    # The positions are float32, because TensorFlow computes them so.
    place = np.arange(size, dtype=np.float32) * np.float32(length / size)
    low = np.floor(place).astype(np.int32)
    high = np.minimum(low + 1, length - 1)
    share = (place - low).reshape([-1 if n == axis else 1 for n in range(4)])
    a, b = (jnp.take(x, index, axis=axis) for index in (low, high))
    x = a + (b - a) * share
  return x
