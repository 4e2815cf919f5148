"""A network that draws what a mean leaves out, with the network of that mean.

  A: u -> mean, features              models.unshuffled_resnet
  B: x_t, mean, u, features -> F      on squares of 2, 4 and 8 pixels

  grid of      in                               out
  2 x 2   conv conv ------------------------+-> block, conv
  4 x 4     \\ conv (with A's features), blocks --+-> blocks
  8 x 8          \\ conv, blocks ---------------/

  block: x + conv2(silu(film(conv1(norm(x)), emb)))

The norm is over the channels of a pixel. As in A, convolutions of 3x3 squares
are all that joins pixels, so that an image in tiles that overlap by `margin`
is the same image. The finest grid is of 2 x 2 pixels, because squares of 4
alone leave a weave on flat areas.

A knows u alone and need not see x_t: it is evaluated once for an image, and B
once for each step.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import layers, unshuffled_resnet
from cdm.models.unshuffled_resnet import UnshuffledResnet

PARTS = MEAN, DETAIL = 'mean', 'detail'  # names in the tree of parameters
FINEST = 2  # side of the squares of the finest grid, pixels
MIDDLE = 4  # of the next one, on which A works
GRIDS = 3  # each twice as coarse as the one before
_SMALL = nn.initializers.variance_scaling(0.1, 'fan_avg', 'uniform')
# The least of each number of the network, and the most.
RANGES = {'widths': (1, 65_536), 'blocks': (0, 1000)}


class Known(NamedTuple):
  """What A knows of an image.

  Attributes:
    mean: float32 [B, H, W, 3].
    features: [B, H, W, F / 16], A's features, whose channels lie in the pixels
      of their squares.
  """

  mean: jax.Array
  features: jax.Array


class RmsNorm(nn.Module):
  """Divides the channels of a pixel by their root mean square, in float32."""

  @nn.compact
  def __call__(self, x):
    """x: [B, h, w, F] -> [B, h, w, F], float32."""
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    scale = layers.per_channel(scale)
    x = x.astype(jnp.float32)
    power = jnp.square(x).mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(power + 1e-6) * scale


class DetailBlock(nn.Module):
  """Residual block, normalised pixel by pixel, scaled and shifted."""

  dtype: Any

  @nn.compact
  def __call__(self, x, emb):
    """x: [B, h, w, F], emb: [B, E] -> [B, h, w, F]."""
    f = x.shape[-1]
    h = RmsNorm(name='norm')(x).astype(self.dtype)
    h = layers.conv(f, dtype=self.dtype, name='conv1')(h)
    h = nn.silu(unshuffled_resnet.film(h, emb, self.dtype, 'film'))
    conv2 = layers.conv(f, dtype=self.dtype, kernel_init=_SMALL, name='conv2')
    return x + conv2(h)


class DetailNet(nn.Module):
  """B of the module.

  Attributes:
    widths: of the features on the grids of 2 x 2, 4 x 4 and 8 x 8 pixels.
    blocks: numbers of blocks there; on the middle grid half of them come before
      the coarsest, on the finest all come last.
    embedding_features: width of the embedding of noise level and damage.
    dtype: of computation.
  """

  widths: tuple[int, ...]
  blocks: tuple[int, ...]
  embedding_features: int
  dtype: Any

  @nn.compact
  def __call__(self, x, noise, known, damage):
    """Predicts, see `DetailNetwork.__call__`."""
    emb = self._embedded(noise, damage)
    image = jnp.concatenate([x, known[..., :6].astype(x.dtype)], axis=-1)
    told = layers.space_to_depth(known[..., 6:], MIDDLE)
    fine, middle, coarse = self.widths
    h = layers.space_to_depth(image, FINEST)
    h = nn.silu(self._conv(fine, 'conv_in')(h))
    held = [self._conv(fine, 'conv_fine')(h)]
    h = layers.space_to_depth(held[0], 2)
    h = jnp.concatenate([h, told.astype(h.dtype)], axis=-1)
    h = self._conv(middle, 'conv_middle')(h)
    before = self.blocks[1] // 2
    for i in range(before):
      h = DetailBlock(self.dtype, name=f'middle_{i}')(h, emb)
    held.append(h)
    h = self._conv(coarse, 'conv_coarse')(layers.space_to_depth(h, 2))
    for i in range(self.blocks[2]):
      h = DetailBlock(self.dtype, name=f'coarse_{i}')(h, emb)
    h = self._conv(4 * middle, 'conv_to_middle')(h)
    h = layers.depth_to_space(h, 2) + held[1]
    for i in range(before, self.blocks[1]):
      h = DetailBlock(self.dtype, name=f'middle_{i}')(h, emb)
    h = self._conv(4 * fine, 'conv_to_fine')(h)
    h = layers.depth_to_space(h, 2) + held[0]
    for i in range(self.blocks[0]):
      h = DetailBlock(self.dtype, name=f'fine_{i}')(h, emb)
    h = nn.silu(RmsNorm(name='norm_out')(h))
    out = layers.conv(
      3 * FINEST**2, dtype=jnp.float32, kernel_init=layers.ZERO, name='conv_out'
    )
    return layers.depth_to_space(out(h), FINEST)

  def _conv(self, features, name):
    return layers.conv(features, dtype=self.dtype, name=name)

  def _embedded(self, noise, damage):
    """Returns [B, E], the embedding of the noise level and of the damage."""
    width = self.embedding_features
    level = layers.condition_scalar(noise, 'logsnr')
    emb = layers.ScalarEmbedding(width, width, name='noise')(1000.0 * level)
    h = layers.dense(width, name='damage1')(damage.astype(jnp.float32))
    emb = emb + layers.dense(width, name='damage2')(nn.silu(h))
    return nn.silu(emb)


class DetailNetwork(nn.Module):
  """A and B of the module, whose parameters lie in one tree.

  Attributes:
    mean: A.
    widths, blocks, embedding_features: see `DetailNet`.
    dtype: 'float32' or 'bfloat16', the dtype of computation of B.
  """

  mean: UnshuffledResnet
  widths: tuple[int, ...] = (32, 64, 96)
  blocks: tuple[int, ...] = (1, 8, 4)
  embedding_features: int = 64
  dtype: str = 'float32'

  # As a network of a diffusion model: no labels, no level of augmentation.
  num_classes = None
  null_class = False
  lowres_level = False
  learned_variance = False
  condition_on = 'logsnr'

  def setup(self):
    self.detail = DetailNet(
      tuple(self.widths),
      tuple(self.blocks),
      self.embedding_features,
      jnp.dtype(self.dtype),
    )

  def __call__(
    self,
    x: jax.Array,
    noise: jax.Array,
    *,
    known: jax.Array,
    damage: jax.Array,
    train: bool,
    examples: Any = None,
  ) -> jax.Array:
    """Evaluates B.

    Args:
      x: [B, H, W, 3], the scaled x_t; `unit` divides H and W.
      noise: [B], the log-SNR.
      known: [B, H, W, 6 + F / 16], see `joined`.
      damage: [B, K], what degraded the low-res image.
      train, examples: as of every network; nothing depends on them here.

    Returns:
      float32 [B, H, W, 3].
    """
    del train, examples
    return self.detail(x, noise, known, damage)

  def known(self, enlarged: jax.Array, damage: jax.Array) -> Known:
    """Evaluates A.

    Args:
      enlarged: [B, H, W, 3], u.
      damage: [B, K].
    """
    found = self.mean(enlarged, damage, train=False)
    features = layers.depth_to_space(found.features, MIDDLE)
    return Known(found.image, features.astype(jnp.float32))

  def both(self, enlarged: jax.Array, damage: jax.Array) -> jax.Array:
    """Evaluates A and B, for the parameters of both."""
    found = self.known(enlarged, damage)
    told = self.joined(found.mean, enlarged, found.features)
    noise = jnp.zeros(len(enlarged))
    return self(enlarged, noise, known=told, damage=damage, train=False)

  @nn.nowrap
  def joined(
    self, mean: jax.Array, enlarged: jax.Array, features: jax.Array
  ) -> jax.Array:
    """Returns what B is told of an image: [B, H, W, 6 + F / 16].

    Args:
      mean, features: see `Known`.
      enlarged: [B, H, W, 3], u.
    """
    return jnp.concatenate([mean, enlarged, features], axis=-1)

  @property
  def unit(self) -> int:
    """Side of the coarsest squares."""
    return FINEST * 2 ** (GRIDS - 1)

  @property
  def margin(self) -> int:
    """Pixels around a square of `unit` that an evaluation of B depends on.

    What A knows of the pixels around is given. A convolution adds a square of
    its grid, and a coarser grid rounds up to whole squares.
    """
    fine, middle, coarse = self.blocks
    before = middle // 2
    reach = FINEST * (1 + 2 * fine)
    reach = -(-reach // MIDDLE) * MIDDLE + MIDDLE * (1 + 2 * (middle - before))
    reach = -(-reach // self.unit) * self.unit + self.unit * (2 + 2 * coarse)
    return reach + MIDDLE * (1 + 2 * before) + 2 * FINEST

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    Embeddings, norms and the last layer are used in float32.

    Args:
      name: name of the parameter, such as 'detail/middle_0/conv1/kernel'.
    """
    part, *modules, _ = name.split('/')
    if part == MEAN:
      return self.mean.parameter_dtype(name.removeprefix(f'{MEAN}/'))
    exact = ('noise', 'damage1', 'damage2', 'conv_out')
    if modules[0] in exact or modules[-1].startswith('norm'):
      return jnp.dtype(jnp.float32)
    return jnp.dtype(self.dtype)


def check(net: DetailNetwork) -> None:
  """Raises ValueError for a field that no network can have; it is named."""
  for field, (least, most) in RANGES.items():
    values = getattr(net, field)
    if len(values) != GRIDS or not all(least <= v <= most for v in values):
      raise ValueError(
        f'{field} is {tuple(values)}; give {GRIDS} numbers, one for each grid, '
        f'from {least} to {most:,}.'
      )
  if net.mean.patch_size != MIDDLE:
    raise ValueError(
      f'mean.patch_size is {net.mean.patch_size}; it must be {MIDDLE}, the '
      'grid on which the details take up what the mean knows.'
    )
  if net.mean.features % MIDDLE**2:
    raise ValueError(
      f'mean.features is {net.mean.features}; it must be a multiple of '
      f'{MIDDLE**2}, so that the features of a square lie in its pixels.'
    )
  if net.embedding_features < 2:
    raise ValueError(
      f'embedding_features is {net.embedding_features}; it must be at least 2.'
    )
  if net.dtype not in unshuffled_resnet.DTYPES:
    raise ValueError(
      f'dtype is {net.dtype!r}; known are '
      f'{", ".join(unshuffled_resnet.DTYPES)}.'
    )
