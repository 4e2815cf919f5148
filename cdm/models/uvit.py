"""Defines simple diffusion's U-ViT: a U-Net around a transformer, [SiD] sec. 3.

The coarsest level, where most of the parameters are, has transformer blocks in
the place of convolutions; the finer levels are those of a U-Net. With three
levels of one block each, images of 64 px and two transformer blocks the
parameters are:

  noise, label, lowres_level                 embeddings, summed
  conv_in
  down_64_block_0 {norm1, conv1, film, norm2, conv2}
  down_64_to_32                              a dense layer, after the mean
  down_32_block_0, down_32_to_16
  position
  transformer_0, transformer_1 {film, qkv, out, mlp1, mlp2}
  up_16_to_32                                a dense layer, before a repetition
  up_32_block_0, up_32_to_64, up_64_block_0
  norm_out, conv_out

A transformer block, with the tokens normalised by mean and deviation, and with
scale and shift of the embedding:

  x <- x + out(attention(film(norm(x))))
  x <- x + mlp2(dropout(gelu(mlp1(film(norm(x))))))

differs: images larger than the U-Net sees are cut into squares of `patch_size`,
whose wavelets [SiD] takes; a linear layer follows, so both tell the same. Where
resolutions change, there is one dense layer. The learned position, the form of
the transformer's conditions and of its norms are ours, because the paper's
could not be read.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import attention_products, layers, unet_plan
from cdm.models.group_norm import GroupNorm, group_count
from cdm.models.unet import FLOAT32, UNIT_SCALE, check_inputs
from cdm.models.unet_plan import Level

# A number that no network exceeds.
MOST_MLP_RATIO = 64


class TransformerBlock(nn.Module):
  """A transformer block of the module.

  Attributes:
    num_heads: heads of attention.
    mlp_ratio: width of the hidden layer over that of the tokens.
    dropout: rate behind the activation of the hidden layer.
    dtype: of computation.
    form: of attention's products, see `attention_products.FORMS`.
  """

  num_heads: int
  mlp_ratio: int
  dropout: float
  dtype: Any
  form: str

  @nn.compact
  def __call__(self, x, emb, examples=None, *, train):
    """Transforms tokens.

    Args:
      x: [B, N, C].
      emb: [B, E] after silu.
      examples: see `layers.dropout`.
      train: True turns dropout on.

    Returns:
      [B, N, C].
    """
    b, n, c = x.shape
    dense = functools.partial(layers.dense, dtype=self.dtype)
    film = dense(4 * c, name='film')(emb)[:, None]  # [B, 1, 4 C]
    scale1, shift1, scale2, shift2 = jnp.split(film, 4, axis=-1)

    h = self._norm(x) * (1 + scale1) + shift1
    qkv = dense(3 * c, name='qkv')(h)
    qkv = qkv.reshape(b, n, 3, self.num_heads, c // self.num_heads)
    q, k, v = (qkv[:, :, i] for i in range(3))
    h = attention_products.attend(q, k, v, self.form).reshape(x.shape)
    # The kernels of both branches start at zero: the block is the identity.
    x = x + dense(c, kernel_init=layers.ZERO, name='out')(h)

    h = self._norm(x) * (1 + scale2) + shift2
    h = nn.gelu(dense(self.mlp_ratio * c, name='mlp1')(h))
    if train and self.dropout:
      if examples is None:
        examples = jnp.arange(b)
      h = layers.dropout(h, self.dropout, self.make_rng('dropout'), examples)
    return x + dense(c, kernel_init=layers.ZERO, name='mlp2')(h)

  @nn.nowrap
  def _norm(self, x):
    """Returns tokens of mean 0 and deviation 1, each by itself."""
    x = x.astype(jnp.float32)
    x = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x).mean(axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(variance + 1e-6)).astype(self.dtype)


class UVit(nn.Module):
  """The network of the module.

  Attributes:
    features: base width; a level has this many channels times its multiplier.
    multipliers: channels of each level over `features`, finest first; the last
      is that of the transformer.
    num_blocks: residual blocks per level of the U-Net, on the way down and on
      the way up. One number, or one per level but the last.
    num_transformers: transformer blocks.
    head_features: width of a head of attention.
    out_channels: channels of the image.
    mlp_ratio: hidden width of the transformer over its own.
    dropout: rate in every residual block, or one rate per level but the last.
    transformer_dropout: rate in every transformer block.
    num_classes, null_class, condition_on, condition_scale, lowres_level,
      patch_size, norm_groups, norm_eps, dtype, remat, attention: see
      `unet.UNet`.
  """

  features: int
  multipliers: Sequence[float]
  num_blocks: int | Sequence[int]
  num_transformers: int
  head_features: int
  out_channels: int = 3
  mlp_ratio: int = 4
  dropout: float | Sequence[float] = 0.0
  transformer_dropout: float = 0.0
  num_classes: int | None = None
  null_class: bool = False
  condition_on: str = 'logsnr'
  condition_scale: float | None = None
  lowres_level: bool = False
  patch_size: int = 1
  norm_groups: int = 32
  norm_eps: float = 1e-5
  dtype: str = 'float32'
  remat: str = 'none'
  attention: str = 'auto'

  # As a network of a diffusion model.
  learned_variance = False

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    noise: jax.Array,
    *,
    label: jax.Array | None = None,
    lowres: jax.Array | None = None,
    lowres_level: jax.Array | None = None,
    examples: jax.Array | None = None,
    train: bool,
  ) -> jax.Array:
    """Returns one prediction per image; see `unet.UNet.__call__`."""
    check_inputs(self, x, noise, label, lowres, lowres_level)
    *convolved, last = plan(self, x.shape[1:3])
    dtype = jnp.dtype(self.dtype)
    emb = nn.silu(self._embed(noise, label, lowres_level)).astype(dtype)
    run = functools.partial(_run, train=train)
    if self.remat != 'none':
      run = nn.remat(run, policy=layers.REMAT_POLICIES[self.remat])

    def block(h, name, level):
      return run(self._block(name, level), h, emb, examples)

    def dense(h, features, name):
      layer = layers.dense(features, dtype=dtype, name=name)
      return layers.on_pixels(layer, h)

    if lowres is not None:
      x = jnp.concatenate([x, lowres.astype(x.dtype)], axis=-1)
    h = layers.space_to_depth(x, self.patch_size).astype(dtype)
    h = layers.conv(convolved[0].features, dtype=dtype, name='conv_in')(h)
    skips = []
    coarser = (*convolved[1:], last)
    for level, below in zip(convolved, coarser, strict=True):
      for i in range(level.num_blocks):
        h = block(h, f'down_{level.name}_block_{i}', level)
        skips.append(h)
      name = f'down_{level.name}_to_{below.name}'
      h = dense(layers.halve(h), below.features, name)

    h = self._transform(h, emb, examples, run, last)

    for level, below in reversed(list(zip(convolved, coarser, strict=True))):
      name = f'up_{below.name}_to_{level.name}'
      h = layers.double(dense(h, level.features, name))
      for i in range(level.num_blocks):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, f'up_{level.name}_block_{i}', level)
    groups = group_count(h.shape[-1], self.norm_groups)
    h = GroupNorm(groups, self.norm_eps, name='norm_out')(h, silu=True)
    h = layers.conv(
      self.out_channels * self.patch_size**2,
      dtype=jnp.float32,
      kernel_init=layers.ZERO,
      name='conv_out',
    )(h)
    return layers.depth_to_space(h, self.patch_size)

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    Embeddings, normalisations and the last layer are used in float32.

    Args:
      name: name of the parameter, such as 'transformer_0/qkv/kernel'.
    """
    *modules, last = name.split('/')
    first = modules[0] if modules else last
    if first in FLOAT32 or (modules and modules[-1].startswith('norm')):
      return jnp.dtype(jnp.float32)
    return jnp.dtype(self.dtype)

  @nn.nowrap
  def _transform(self, h, emb, examples, run, level):
    """Returns the coarsest feature map after all transformer blocks."""
    shape, dtype = h.shape, jnp.dtype(self.dtype)
    h = h.reshape(shape[0], -1, shape[-1])
    init = nn.initializers.normal(0.02)
    position = self.param('position', init, h.shape[1:], jnp.float32)
    h = h + position[None].astype(dtype)
    for i in range(self.num_transformers):
      layer = TransformerBlock(
        num_heads=level.num_heads,
        mlp_ratio=self.mlp_ratio,
        dropout=self.transformer_dropout,
        dtype=dtype,
        form=self.attention,
        name=f'transformer_{i}',
      )
      h = run(layer, h, emb, examples)
    return h.reshape(shape)

  @nn.nowrap
  def _embed(self, noise, label, lowres_level):
    """Returns [B, E] float32, the sum of the embeddings of all conditions."""
    width = 4 * self.features
    scalar = functools.partial(layers.ScalarEmbedding, self.features, width)
    scale = self.condition_scale
    if scale is None:
      scale = 1.0 if self.condition_on == 't' else UNIT_SCALE
    level = layers.condition_scalar(noise, self.condition_on)
    emb = scalar(name='noise')(scale * level)
    if label is not None:
      assert self.num_classes is not None  # see `check_inputs`
      rows = self.num_classes + self.null_class
      init = nn.initializers.normal(1.0)
      emb += nn.Embed(rows, width, embedding_init=init, name='label')(label)
    if lowres_level is not None:
      emb += scalar(name='lowres_level')(UNIT_SCALE * lowres_level)
    return emb

  @nn.nowrap
  def _block(self, name, level):
    return layers.ResBlock(
      features=level.features,
      embedding='film',
      dropout=level.dropout,
      norm_groups=self.norm_groups,
      norm_eps=self.norm_eps,
      dtype=jnp.dtype(self.dtype),
      name=name,
    )


def plan(net: UVit, image_size: Sequence[int]) -> tuple[Level, ...]:
  """Returns the levels of a `UVit` at an image size, finest first.

  Args:
    net: the network; its fields are checked here.
    image_size: (H, W) of the images.

  Raises:
    ValueError: the image size or a field does not fit the other fields.
  """
  if len(net.multipliers) < 2:
    raise ValueError(
      f'multipliers is {tuple(net.multipliers)}; give at least two, of which '
      'the last is that of the transformer.'
    )
  for field, most in (
    ('num_transformers', unet_plan.MOST_BLOCKS),
    ('mlp_ratio', MOST_MLP_RATIO),
  ):
    if not 1 <= getattr(net, field) <= most:
      raise ValueError(
        f'{field} is {getattr(net, field)}; it must be from 1 to {most}.'
      )
  if not 0.0 <= net.transformer_dropout < 1.0:
    raise ValueError(
      f'transformer_dropout is {net.transformer_dropout}; a rate must be at '
      'least 0 and below 1.'
    )
  # The transformer has no residual blocks; its values are not used.
  given = {
    'num_blocks': _completed(net, 'num_blocks', 1),
    'dropout': _completed(net, 'dropout', 0.0),
  }
  return unet_plan.plan(_Planned(net, given), image_size)


def _completed(net, field, last):
  """Returns a field of one number, or of one per level of convolutions."""
  value, count = getattr(net, field), len(net.multipliers) - 1
  if not isinstance(value, Sequence):
    return value
  if len(value) != count:
    raise ValueError(
      f'{field} has {len(value)} values for {count} levels of convolutions; '
      'give one number or one per level.'
    )
  return (*value, last)


class _Planned:
  """A `UVit` as `unet_plan.plan` knows networks."""

  resample, embedding, num_heads = 'plain', 'film', 1
  attention_resolutions, max_period = (), 1.0

  def __init__(self, net, given):
    self._net, self._given = net, given

  def __getattr__(self, name):
    return self._given.get(name, getattr(self._net, name))


def _run(layer, *inputs, train):
  """Calls a block; a free function, so that remat can wrap the call."""
  return layer(*inputs, train=train)
