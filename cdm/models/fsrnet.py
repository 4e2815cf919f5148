"""Defines FSRNet, the face super-resolution network of [FSRNet].

  y_c = x + coarse(x)                      x: the low-res image, enlarged
  p   = prior(y_c)                         features at half the size
  y   = y_c + decoder(encoder(y_c), p)

The coarse network has 3 residual blocks, the fine encoder 12, the decoder a
4x4 transposed convolution and 3 blocks, the prior network 2 stacked
hourglasses. None of these numbers was read in the paper (UNVERIFIED-M); the
unofficial PyTorch port by cs-giung has the same. Where maps of a face's
landmarks and parts are given, a 1x1 convolution estimates them from p; where
they are not, p is learnt from the images alone, and the network has no such
convolution.

differs: the port normalises over the batch, with which a drawn image would
depend on the others. Here groups of channels of one image are normalised, only
inside residual branches, because normalising the first layer would take the
brightness out of an image. The port ends both networks with tanh; here they add
to their input and begin as the identity, so that training begins at the
enlarged image.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import precision
from cdm.models.group_norm import GroupNorm, group_count
from cdm.models.layers import ZERO, conv, double

DTYPES = ('float32', 'bfloat16')  # as a config names them
_EPS = 1e-5


class Output(NamedTuple):
  """What FSRNet makes of a batch.

  Attributes:
    image: [B, H, W, 3] float32, the fine image y.
    coarse: [B, H, W, 3] float32, the coarse image y_c.
    maps: [B, H/2, W/2, num_maps] float32, the estimated maps of landmarks and
      facial parts; None if the network has none.
  """

  image: jax.Array
  coarse: jax.Array
  maps: jax.Array | None


class FsrNet(nn.Module):
  """FSRNet, from an enlarged low-res image to a high-res one.

  Attributes:
    features: channels of the coarse network, the encoder and the decoder.
    prior_features: channels of the prior network.
    coarse_blocks, encoder_blocks, decoder_blocks: numbers of residual blocks.
    hourglasses: number of stacked hourglasses of the prior network.
    hourglass_depth: how often an hourglass halves its feature maps.
    num_maps: channels of the maps of landmarks and facial parts; 0 without
      such data.
    norm_groups: see `group_norm.group_count`.
    dtype: of computation; normalisations and images are float32.
  """

  features: int = 64
  prior_features: int = 128
  coarse_blocks: int = 3
  encoder_blocks: int = 12
  decoder_blocks: int = 3
  hourglasses: int = 2
  hourglass_depth: int = 3
  num_maps: int = 0
  norm_groups: int = 8
  dtype: Any = jnp.float32

  # The network takes no label; these are no fields.
  num_classes = None
  null_class = False

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    Args:
      name: name of the parameter, such as 'encoder/block_0/conv1/kernel'.
    """
    is_norm = name.split('/')[-2].startswith('norm')
    return jnp.dtype(jnp.float32 if is_norm else self.dtype)

  @nn.compact
  def __call__(self, x: jax.Array) -> Output:
    """x: [B, H, W, 3] in [-1, 1] -> Output; H and W as `check` asks for."""
    check(self, x.shape[1])
    groups, dtype = self.norm_groups, self.dtype
    tower = Tower(
      self.features, self.coarse_blocks, groups, dtype, name='coarse'
    )
    coarse = x + tower(x)
    h = Encoder(
      self.features, self.encoder_blocks, groups, dtype, name='encoder'
    )(coarse)
    prior = Prior(
      self.prior_features,
      self.hourglasses,
      self.hourglass_depth,
      groups,
      dtype,
      name='prior',
    )(coarse)
    maps = None
    if self.num_maps:
      maps = nn.Conv(
        self.num_maps,
        (1, 1),
        dtype=dtype,
        precision=precision.of(dtype),
        name='maps',
      )(prior)
      maps = maps.astype(jnp.float32)
    h = jnp.concatenate([h, prior], axis=-1)
    h = nn.relu(conv(self.features, dtype=dtype, name='join')(h))
    h = nn.ConvTranspose(
      self.features,
      (4, 4),
      strides=(2, 2),
      dtype=dtype,
      precision=precision.of(dtype),
      name='double',
    )(h)
    image = coarse + Tower(
      self.features, self.decoder_blocks, groups, dtype, name='decoder'
    )(h)
    return Output(image, coarse, maps)


def check(net: FsrNet, image_size: int) -> None:
  """Raises ValueError for a field that no FSRNet can have; it is named.

  Args:
    net: the network.
    image_size: H = W of its images.
  """
  if isinstance(net.dtype, str) and net.dtype not in DTYPES:
    raise ValueError(f'dtype is {net.dtype!r}; known are {", ".join(DTYPES)}.')
  for field in ('features', 'prior_features', 'hourglasses', 'norm_groups'):
    if getattr(net, field) < 1:
      raise ValueError(
        f'{field} is {getattr(net, field)}; it must be at least 1.'
      )
  for field in (
    *('coarse_blocks', 'encoder_blocks', 'decoder_blocks'),
    *('hourglass_depth', 'num_maps'),
  ):
    if getattr(net, field) < 0:
      raise ValueError(
        f'{field} is {getattr(net, field)}; it must be at least 0.'
      )
  part = 2 ** (net.hourglass_depth + 1)
  if image_size % part:
    raise ValueError(
      f'hourglass_depth is {net.hourglass_depth}, which halves images '
      f'{net.hourglass_depth + 1} times, but images of {image_size} pixels '
      f'(pipeline.image_size) are no multiple of {part}; use a smaller depth.'
    )


class Tower(nn.Module):
  """Residual blocks between two convolutions, from an image to a change of it.

  The last convolution starts at zero, so that the image starts unchanged.
  """

  features: int
  num_blocks: int
  norm_groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> [B, H, W, 3] float32."""
    h = nn.relu(conv(self.features, dtype=self.dtype, name='stem')(x))
    for i in range(self.num_blocks):
      h = Block(self.norm_groups, self.dtype, name=f'block_{i}')(h)
    h = conv(3, dtype=self.dtype, kernel_init=ZERO, name='out')(h)
    return h.astype(jnp.float32)


class Encoder(nn.Module):
  """The fine encoder, which halves the resolution first."""

  features: int
  num_blocks: int
  norm_groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, 3] -> [B, H/2, W/2, features]."""
    h = conv(self.features, strides=2, dtype=self.dtype, name='stem')(x)
    h = nn.relu(h)
    for i in range(self.num_blocks):
      h = Block(self.norm_groups, self.dtype, name=f'block_{i}')(h)
    return conv(self.features, dtype=self.dtype, name='out')(h)


class Prior(nn.Module):
  """The prior network: a strided 7x7 convolution, then stacked hourglasses."""

  features: int
  num_hourglasses: int
  depth: int
  norm_groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, 3] -> [B, H/2, W/2, features]."""
    h = nn.Conv(
      self.features,
      (7, 7),
      strides=2,
      padding=3,
      dtype=self.dtype,
      precision=precision.of(self.dtype),
      name='stem',
    )(x)
    h = Block(self.norm_groups, self.dtype, name='block')(nn.relu(h))
    for i in range(self.num_hourglasses):
      h = Hourglass(
        self.depth, self.norm_groups, self.dtype, name=f'hourglass_{i}'
      )(h)
    return h


class Hourglass(nn.Module):
  """An hourglass: down to the coarsest map and up again, with skips."""

  depth: int
  norm_groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> the same shape."""

    def block(name):
      return Bottleneck(self.norm_groups, self.dtype, name=name)

    if not self.depth:
      return block('centre')(x)
    h = nn.max_pool(x, (2, 2), strides=(2, 2))
    h = block('down')(h)
    h = Hourglass(self.depth - 1, self.norm_groups, self.dtype, name='inner')(h)
    h = double(block('up')(h))
    return block('skip')(x) + h


class Block(nn.Module):
  """Two 3x3 convolutions beside a shortcut, each after a normalisation."""

  norm_groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> the same shape."""
    h = x
    for i in (1, 2):
      h = nn.relu(_norm(h, self.norm_groups, self.dtype, f'norm{i}'))
      h = conv(x.shape[-1], dtype=self.dtype, name=f'conv{i}')(h)
    return x + h


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions of half the width beside a shortcut."""

  norm_groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> the same shape."""
    h, c = x, x.shape[-1]
    for i, (width, side) in enumerate([(c // 2, 1), (c // 2, 3), (c, 1)]):
      h = nn.relu(_norm(h, self.norm_groups, self.dtype, f'norm{i + 1}'))
      h = nn.Conv(
        max(width, 1),
        (side, side),
        dtype=self.dtype,
        precision=precision.of(self.dtype),
        name=f'conv{i + 1}',
      )(h)
    return x + h


def _norm(x, norm_groups, dtype, name):
  groups = group_count(x.shape[-1], norm_groups)
  return GroupNorm(groups, _EPS, dtype, name=name)(x)
