"""Defines StyleGAN's first generator, [StyleGAN]: latent and noise to image.

  w = mapping(z)                            z, w in R^E, [StyleGAN] fig. 1
  x = style(norm(lrelu(conv(x) + b + c n)), w_l)       layer l, fig. 1
  style(x, w) = (1 + s(w)) x + t(w)                    AdaIN, eq. 1

The generator begins with a learned constant of 4x4 pixels and doubles it block
by block; a block has two layers, and each layer l has a latent w_l of its own
and one map of noise n, which it adds to all channels with a weight c for each.
All arithmetic is that of the published weights.

Learning rates are equalised ([PGGAN] sec. 4.1): a stored weight has unit
variance (1 / lr_multiplier^2) and is scaled by gain / sqrt(fan_in) where it is
used.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import precision
from cdm.models.layers import per_channel

SMALLEST, LARGEST = 8, 1024  # sides in pixels
SLOPE = 0.2  # of the leaky ReLUs
# From this side on, enlarging and convolving are one transposed convolution,
# which is not the same function.
FUSED_FROM = 128
GAIN = math.sqrt(2.0)  # of a layer that a leaky ReLU follows


class Generator(nn.Module):
  """StyleGAN's generator: a mapping network and a synthesis network.

  Attributes:
    image_size: H = W of its images, a power of two from 8 to 1024.
    latent_size: E, the length of z and of w.
    feature_base: channels at 4x4 pixels and more would be `feature_base` times
      2 over the side in pixels; `most_features` bounds them.
    most_features: the largest number of channels of a layer.
    mapping_layers: dense layers of the mapping network; 0 leaves the mapping
      network out, so that there is no `w_of_z`.
  """

  image_size: int
  latent_size: int = 512
  feature_base: int = 8192
  most_features: int = 512
  mapping_layers: int = 8

  # It takes no labels, and computes in float32 only.
  num_classes = None
  null_class = False
  dtype = 'float32'

  def setup(self):
    check(self)
    if self.mapping_layers:
      self.mapping = Mapping(self.latent_size, self.mapping_layers)
    self.synthesis = Synthesis(
      tuple((side, self.features(side)) for side in self.sides)
    )

  @nn.nowrap
  def features(self, side: int) -> int:
    """Returns the number of channels at so many pixels."""
    return min(2 * self.feature_base // side, self.most_features)

  @property
  def sides(self) -> tuple[int, ...]:
    """H = W of the blocks: 4, 8, ..., image_size."""
    return tuple(2**n for n in range(2, self.image_size.bit_length()))

  @property
  def noise_sides(self) -> tuple[int, ...]:
    """H = W of the noise of each layer: 4, 4, 8, 8, ..., image_size."""
    return tuple(side for side in self.sides for _ in range(2))

  @property
  def num_layers(self) -> int:
    """L, the number of layers, each with a latent w_l and a noise map."""
    return len(self.noise_sides)

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter: float32."""
    del name
    return jnp.dtype(self.dtype)

  def __call__(self, z: jax.Array, noise: Sequence[jax.Array]) -> jax.Array:
    """Draws images with one latent for all layers.

    Args:
      z: [B, E], standard normal.
      noise: [B, h, w] for each layer, see `noise_sides`.

    Returns:
      [B, H, W, 3]; natural images lie in [-1, 1], nothing is clipped.
    """
    w = jnp.repeat(self.w_of_z(z)[:, None], self.num_layers, axis=1)
    return self.image(w, noise)

  def w_of_z(self, z: jax.Array) -> jax.Array:
    """Maps latents: [..., E] -> [..., E]."""
    return self.mapping(z)

  def image(self, w: jax.Array, noise: Sequence[jax.Array]) -> jax.Array:
    """Draws images: w [B, L, E], noise L times [B, h, w] -> [B, H, W, 3]."""
    return self.synthesis(w, noise)


class Mapping(nn.Module):
  """The mapping network: normalises z and applies dense layers."""

  latent_size: int
  num_layers: int = 8

  @nn.compact
  def __call__(self, z):
    """z: [..., E] -> [..., E]."""
    w = z * jax.lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + 1e-8)
    for i in range(self.num_layers):
      w = EqualDense(
        self.latent_size, gain=GAIN, lr_multiplier=0.01, name=f'dense{i}'
      )(w)
      w = nn.leaky_relu(w, SLOPE)
    return w


class Synthesis(nn.Module):
  """The synthesis network: a block for each side, then a layer to colours.

  Attributes:
    blocks: (side in pixels, channels) of each block, from 4 pixels on.
  """

  blocks: Sequence[tuple[int, int]]

  @nn.compact
  def __call__(self, w, noise):
    """w: [B, L, E], noise: L times [B, h, w] -> [B, H, W, 3]."""
    x = None
    for i, (side, features) in enumerate(self.blocks):
      own = slice(2 * i, 2 * i + 2)
      x = Block(side, features, name=f'block_{side}')(x, w[:, own], noise[own])
    return EqualConv(3, size=1, gain=1.0, name='to_rgb')(x)


class Block(nn.Module):
  """Two layers at one side; the first enlarges the image, or is constant."""

  side: int
  features: int

  @nn.compact
  def __call__(self, x, w, noise):
    """x: [B, H/2, W/2, c] or None, w: [B, 2, E], noise: 2 times [B, H, W].

    Returns [B, H, W, features].
    """
    if x is None:
      shape = (self.side, self.side, self.features)
      const = self.param('const', nn.initializers.ones, shape)[None]
      bias = self.param('bias', nn.initializers.zeros, shape[-1:])
      x = const + per_channel(bias)
      x = jnp.broadcast_to(x, (w.shape[0], *shape))
    else:
      x = EqualConv(self.features, enlarges=True, name='conv_up')(x)
    x = Epilogue(name='epilogue1')(x, w[:, 0], noise[0])
    x = EqualConv(self.features, name='conv')(x)
    return Epilogue(name='epilogue2')(x, w[:, 1], noise[1])


class Epilogue(nn.Module):
  """What follows a convolution: noise, leaky ReLU, AdaIN."""

  @nn.compact
  def __call__(self, x, w, noise):
    """x: [B, H, W, C], w: [B, E], noise: [B, H, W] -> [B, H, W, C]."""
    features = x.shape[-1]
    strength = self.param('noise', nn.initializers.zeros, (features,))
    x = nn.leaky_relu(x + noise[..., None] * per_channel(strength), SLOPE)
    x -= x.mean(axis=(1, 2), keepdims=True)
    x *= jax.lax.rsqrt((x * x).mean(axis=(1, 2), keepdims=True) + 1e-5)
    style = EqualDense(2 * features, gain=1.0, name='style')(w)
    scale, shift = jnp.split(style[:, None, None], 2, axis=-1)
    return x * (1.0 + scale) + shift


class EqualDense(nn.Module):
  """A dense layer with an equalised learning rate."""

  features: int
  gain: float
  lr_multiplier: float = 1.0

  @nn.compact
  def __call__(self, x):
    """x: [..., c] -> [..., features]."""
    fan_in = x.shape[-1]
    init = nn.initializers.normal(1.0 / self.lr_multiplier)
    kernel = self.param('kernel', init, (fan_in, self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    scale = self.gain * self.lr_multiplier / math.sqrt(fan_in)
    bias = jnp.expand_dims(bias, range(x.ndim - 1))  # [..., features]
    y = jnp.matmul(x, kernel * scale, precision=precision.HIGHEST)
    return y + bias * self.lr_multiplier


class EqualConv(nn.Module):
  """A convolution with an equalised learning rate, which may enlarge by 2.

  An enlarged image is blurred before the bias is added.
  """

  features: int
  size: int = 3
  gain: float = GAIN
  enlarges: bool = False

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, c] -> [B, H, W, features], or 2H and 2W if it enlarges."""
    fan_in = self.size**2 * x.shape[-1]
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.normal(1.0), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    kernel = kernel * (self.gain / math.sqrt(fan_in))
    bias = per_channel(bias)
    if not self.enlarges:
      return _conv(x, kernel) + bias
    if 2 * x.shape[1] >= FUSED_FROM:
      x = _fused_up(x, kernel)
    else:
      x = _conv(x.repeat(2, axis=1).repeat(2, axis=2), kernel)
    return _blur(x) + bias


def _conv(x, kernel):
  """Convolves with zeros around the image: [B, H, W, c] -> [B, H, W, C]."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=precision.HIGHEST,
  )


def _fused_up(x, kernel):
  """Enlarges and convolves at once: [B, H, W, c] -> [B, 2H, 2W, C].

  It is the transposed convolution with the sum of the kernel's four shifts by
  at most one pixel.
  """
  kernel = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
  kernel = kernel[1:] + kernel[:-1]
  kernel = kernel[:, 1:] + kernel[:, :-1]  # [4, 4, c, C]
  return jax.lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    (1, 1),
    ((2, 2), (2, 2)),
    lhs_dilation=(2, 2),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=precision.HIGHEST,
  )


def _blur(x):
  """Blurs by [1, 2, 1] / 4 along H and W, with zeros around the image."""
  for axis in (1, 2):
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 1)
    padded = jnp.pad(x, padding)
    n = x.shape[axis]
    before = jax.lax.slice_in_dim(padded, 0, n, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2, n + 2, axis=axis)
    x = (before + 2.0 * x + after) / 4.0
  return x


def check(net: Generator) -> None:
  """Raises ValueError, naming the key, if the network cannot be built."""
  size = net.image_size
  if not SMALLEST <= size <= LARGEST or size & (size - 1):
    raise ValueError(
      f'pipeline.image_size is {size}; a StyleGAN draws images whose side is a '
      f'power of two from {SMALLEST} to {LARGEST}.'
    )
  for key in ('latent_size', 'feature_base', 'most_features'):
    if getattr(net, key) < 1:
      raise ValueError(
        f'model.{key} is {getattr(net, key)}; it must be at least 1.'
      )
  if net.mapping_layers < 0:
    raise ValueError(
      f'model.mapping_layers is {net.mapping_layers}; it must be at least 0.'
    )
  if not net.features(size):
    raise ValueError(
      f'model.feature_base is {net.feature_base}, which leaves no channels at '
      f'{size} pixels; it must be at least {size // 2}.'
    )
