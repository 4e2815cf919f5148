"""A residual network on squares of pixels that sharpens an enlarged image.

  y = u + shuffle(g(levels) f(unshuffle(u), levels))

u is the low-res image, enlarged to the size of the result by whatever factor,
so that one network serves all factors. The p x p squares of its pixels become
channels, and all blocks work on the grid of squares: at 4x that is the low-res
image's own grid, and the cost of a pixel of the result falls by p^2.

  block: x + conv2(silu(film(conv1(x), levels)))

Convolutions of 3x3 squares are all that joins pixels: there is no attention and
no statistic over space. So a pixel of the result depends on pixels of u within
`margin` of it alone, and an image that is computed in tiles which overlap by
that much is the same image. The last layer is initialised to zero: the result
starts as u.

What degraded the low-res image is known to the network as numbers, one vector
per image. They scale and shift the channels of every block and of what enters
the first, and they scale what the last layer adds to u. From the first step on
they tell images apart: a picture that is enlarged 4x should be sharpened, a
noisy one smoothed and a clean one of its own size left alone. Before a network
tells these apart, its best answer to all of them is next to nothing: with a
conv2 and a film of zeros, and without g, 300 steps did not reach what 200 do.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import layers, quiet_smoothing

# The least of each number of a network, and the most.
RANGES = {
  'features': (1, 65_536),
  'num_blocks': (1, 1000),
  'patch_size': (1, 64),
  'embedding_features': (1, 65_536),
}
DTYPES = ('float32', 'bfloat16')


class Output(NamedTuple):
  """What the network computes.

  Attributes:
    image: float32 [B, H, W, 3], the result.
    features: [B, H/p, W/p, F], what its last layer is computed from.
  """

  image: jax.Array
  features: jax.Array


# Of conv2: a new block adds little.
_SMALL = nn.initializers.variance_scaling(0.1, 'fan_avg', 'uniform')


class FilmBlock(nn.Module):
  """Residual block without normalisation, scaled and shifted by levels."""

  dtype: Any

  @nn.compact
  def __call__(self, x, emb):
    """x: [B, h, w, F], emb: [B, E] -> [B, h, w, F]."""
    f = x.shape[-1]
    h = layers.conv(f, dtype=self.dtype, name='conv1')(x)
    h = nn.silu(film(h, emb, self.dtype, 'film'))
    conv2 = layers.conv(f, dtype=self.dtype, kernel_init=_SMALL, name='conv2')
    return x + conv2(h)


def film(h, emb, dtype, name):
  """Scales and shifts h [B, h, w, F] by a dense layer of emb [B, E]."""
  film = layers.dense(2 * h.shape[-1], dtype=dtype, name=name)(emb)
  scale, shift = jnp.split(film[:, None, None], 2, axis=-1)  # [B, 1, 1, F]
  return h * (1 + scale) + shift


class UnshuffledResnet(nn.Module):
  """Sharpens an enlarged image, knowing what degraded its low-res image.

  Attributes:
    features: F, the width.
    num_blocks: residual blocks.
    patch_size: p, the side of a square of pixels that becomes channels.
    embedding_features: E, the width of the embedding of the levels.
    dtype: 'float32' or 'bfloat16', the dtype of computation. Parameters and
      the image are float32.
    quiet_level: grey levels below which the finest detail of what is added to
      u is smoothed, see `quiet_smoothing`; 0 is off.
  """

  features: int = 48
  num_blocks: int = 12
  patch_size: int = 4
  embedding_features: int = 32
  dtype: str = 'float32'
  quiet_level: float = 0.0

  # The network takes no labels.
  num_classes = None
  null_class = False

  @property
  def margin(self) -> int:
    """Pixels of the result around a square that the square depends on.

    Whole squares: at p = 4, the p x p square of a pixel depends on no pixel of
    the enlarged image that is further from the square than this.
    """
    squares = 2 * self.num_blocks + 2
    if self.quiet_level:
      squares += -(-quiet_smoothing.reach(self.patch_size) // self.patch_size)
    return self.patch_size * squares

  @nn.compact
  def __call__(
    self,
    enlarged: jax.Array,
    levels: jax.Array,
    *,
    train: bool,
    examples: Any = None,
  ) -> Output:
    """Computes the image and its features.

    Args:
      enlarged: [B, H, W, 3] in about [-1, 1]; p divides H and W.
      levels: [B, K], what degraded the low-res image, in units near 1.
      train, examples: as of every network; nothing depends on them here.
    """
    del train, examples
    height, width = enlarged.shape[1:3]
    if height % self.patch_size or width % self.patch_size:
      raise ValueError(
        f'The enlarged image has {width}x{height} pixels, but this network '
        f'takes whole squares of {self.patch_size} pixels. Pad the image to '
        f'multiples of {self.patch_size}, and cut the result.'
      )
    dtype = jnp.dtype(self.dtype)
    emb = layers.dense(self.embedding_features, name='levels1')(
      levels.astype(jnp.float32)
    )
    emb = layers.dense(self.embedding_features, name='levels2')(nn.silu(emb))
    emb = nn.silu(emb)
    squares = layers.space_to_depth(enlarged, self.patch_size)
    h = layers.conv(self.features, dtype=dtype, name='conv_in')(squares)
    h = film(h, emb, dtype, 'film_in')
    for i in range(self.num_blocks):
      h = FilmBlock(dtype, name=f'block_{i}')(h, emb)
    channels = 3 * self.patch_size**2
    conv_out = layers.conv(
      channels, dtype=jnp.float32, kernel_init=layers.ZERO, name='conv_out'
    )
    gate = layers.dense(channels, kernel_init=layers.ZERO, name='gate')(emb)
    found = conv_out(h.astype(jnp.float32)) * (1 + gate[:, None, None])
    found = layers.depth_to_space(found, self.patch_size)
    if self.quiet_level:
      found = quiet_smoothing.smoothed(found, self.patch_size, self.quiet_level)
    return Output(enlarged.astype(jnp.float32) + found, h)

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    The last layer, its gate and the embedding of the levels are used in
    float32.

    Args:
      name: name of the parameter, such as 'block_0/conv1/kernel'.
    """
    if name.split('/')[0] in ('conv_out', 'gate', 'levels1', 'levels2'):
      return jnp.dtype(jnp.float32)
    return jnp.dtype(self.dtype)


def check(net: UnshuffledResnet) -> None:
  """Raises ValueError for a field that no network can have; it is named."""
  for field, (least, most) in RANGES.items():
    value = getattr(net, field)
    if not least <= value <= most:
      raise ValueError(
        f'{field} is {value}; it must be from {least} to {most:,}.'
      )
  if not 0.0 <= net.quiet_level < 256:
    raise ValueError(
      f'quiet_level is {net.quiet_level}; it must be from 0 to 256 grey levels.'
    )
  if net.dtype not in DTYPES:
    raise ValueError(f'dtype is {net.dtype!r}; known are {", ".join(DTYPES)}.')
