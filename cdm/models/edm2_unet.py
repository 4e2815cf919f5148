"""Defines the U-Net of EDM2, whose layers keep magnitudes, [EDM2] fig. 21.

It is config G of the paper: there is no normalisation over groups, no bias, and
but for the gains no parameter whose size has a meaning. With two levels of one
block each, images of 64 px and attention at 32 px the parameters are:

  noise, label, lowres_level                 embeddings, mixed
  conv_in
  down_64_block_0 {skip, conv1, embedding, gain, conv2}
  down_64_to_32                              a block
  down_32_block_0 {skip, ..., qkv, projection}
  mid_block_0, mid_block_1                   the first one attends
  up_32_block_0, up_32_block_1
  up_32_to_64
  up_64_block_0, up_64_block_1
  conv_out, gain

A block, with c = 1 + gain embedding(e), p the normalisation of every pixel over
its channels, and `mix`, `silu` of `magnitude_preserving`:

  down   x <- p(skip(x))
         x <- mix(x, conv2(silu(c conv1(silu(x)))), 0.3)
  up     x <- mix(skip(x), conv2(silu(c conv1(silu(x)))), 0.3)
  both   x <- clip(mix(x, attention(x), 0.3))

and skip is there only where the number of channels changes. Queries, keys and
values are normalised over the channels of each head.

differs: frequencies and phases of embeddings are quantiles of their laws and
not drawn, see `loss_uncertainty.fourier_constants`. A low-res image and its
level of augmentation are further inputs, which [EDM2] does not have.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import attention_products, layers
from cdm.models import magnitude_preserving as mp
from cdm.models.edm2_plan import plan
from cdm.models.loss_uncertainty import (
  fourier_constants,
  fourier_features,
  noise_label,
)
from cdm.models.magnitude_preserving import MpConv
from cdm.models.unet import check_inputs


class Edm2Block(nn.Module):
  """A block of the module, on the way down or up.

  Attributes:
    features: number of output channels.
    is_up: whether it stands on the way up.
    resample: None, 'half' or 'double', before anything else.
    num_heads: heads of attention; 0 is none.
    dropout: rate, before the second convolution.
    residual_balance, attention_balance: shares of the two branches.
    clip: largest absolute value of the output; None does not clip.
    resample_filter: see `magnitude_preserving.resample`.
    dtype: of computation.
    form: of attention's products, see `attention_products.FORMS`.
  """

  features: int
  is_up: bool
  resample: str | None = None
  num_heads: int = 0
  dropout: float = 0.0
  residual_balance: float = 0.3
  attention_balance: float = 0.3
  clip: float | None = 256.0
  resample_filter: Sequence[float] = (1, 1)
  dtype: Any = jnp.float32
  form: str = 'auto'

  @nn.compact
  def __call__(self, x, emb, examples=None, *, train):
    """Transforms a feature map.

    Args:
      x: [B, H, W, C].
      emb: [B, E] float32.
      examples: see `layers.dropout`.
      train: True turns dropout on.

    Returns:
      [B, H', W', features].
    """
    conv = functools.partial(MpConv, self.features, dtype=self.dtype)
    x = mp.resample(x, self.resample, self.resample_filter)
    has_skip = x.shape[-1] != self.features
    if not self.is_up:
      if has_skip:
        x = conv(name='skip')(x)
      x = mp.normalize(x, [-1])

    h = conv(3, name='conv1')(mp.silu(x))
    gain = self.param('gain', nn.initializers.zeros, (), jnp.float32)
    scale = 1 + MpConv(self.features, name='embedding')(emb, gain)
    h = mp.silu(h * scale[:, None, None].astype(h.dtype))
    if train and self.dropout:
      if examples is None:
        examples = jnp.arange(h.shape[0])
      h = layers.dropout(h, self.dropout, self.make_rng('dropout'), examples)
    h = conv(3, name='conv2')(h)

    if self.is_up and has_skip:
      x = conv(name='skip')(x)
    x = mp.mix(x, h, self.residual_balance)
    if self.num_heads:
      x = mp.mix(x, self._attend(x), self.attention_balance)
    return x if self.clip is None else jnp.clip(x, -self.clip, self.clip)

  @nn.nowrap
  def _attend(self, x):
    """Returns self-attention of the pixels, [B, H, W, C]."""
    b, height, width, c = x.shape
    qkv = MpConv(3 * c, dtype=self.dtype, name='qkv')(x)
    heads = (b, height * width, 3, self.num_heads, c // self.num_heads)
    qkv = mp.normalize(qkv.reshape(heads), [-1])
    q, k, v = (qkv[:, :, i] for i in range(3))
    h = attention_products.attend(q, k, v, self.form)
    return MpConv(c, dtype=self.dtype, name='projection')(h.reshape(x.shape))


class Edm2UNet(nn.Module):
  """The network of the module.

  Its output is F of [EDM] tab. 1 where its input is scaled to unit variance, as
  the prediction 'edm' does.

  Attributes:
    features: base width; a level has this many channels times its multiplier.
    multipliers: channels of each level over `features`, finest first.
    num_blocks: blocks per level on the way down; on the way up one more.
    out_channels: channels of the image.
    attention_resolutions: longer sides, in pixels, of the feature maps that
      have attention in every block. The first block of the middle always has.
    head_features: width of a head of attention.
    dropout: rate in every block.
    num_classes: number of classes; labels are then required. None means no
      labels.
    null_class: True allows the label num_classes, for images whose label was
      dropped; its embedding is 0.
    lowres_level: True makes the augmentation level of lowres, in [0, 1], an
      input with its own embedding, [CDM].
    lowres_scale: factor of a low-res image, which brings it near unit
      magnitude: 1 / sigma_data.
    noise_multiplier: Fourier features of a scalar over `features`; None is that
      of the finest level.
    embedding_multiplier: width of the embedding over `features`; None is that
      of the widest level.
    label_balance: share of the label in the embedding.
    level_balance: share of the augmentation level in it.
    concat_balance: share of what the way down passes to the way up.
    residual_balance, attention_balance, clip, resample_filter: see `Edm2Block`.
    dtype: 'float32' or 'bfloat16', the dtype of computation. Parameters,
      embeddings, the last layer and the output are float32.
    remat: see `unet_plan.REMAT`.
    attention: see `attention_products.FORMS`.
  """

  features: int
  multipliers: Sequence[float] = (1, 2, 3, 4)
  num_blocks: int = 3
  out_channels: int = 3
  attention_resolutions: Sequence[int] = (16, 8)
  head_features: int = 64
  dropout: float = 0.0
  num_classes: int | None = None
  null_class: bool = False
  lowres_level: bool = False
  lowres_scale: float = 2.0
  noise_multiplier: int | None = None
  embedding_multiplier: int | None = None
  label_balance: float = 0.5
  level_balance: float = 0.5
  concat_balance: float = 0.5
  residual_balance: float = 0.3
  attention_balance: float = 0.3
  clip: float | None = 256.0
  resample_filter: Sequence[float] = (1, 1)
  dtype: str = 'float32'
  remat: str = 'none'
  attention: str = 'auto'

  # As a network of a diffusion model.
  learned_variance = False
  condition_on = 'logsnr'

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
    """Returns one prediction per image.

    Args:
      x: [B, H, W, out_channels] noisy images, of unit variance.
      noise: [B], the log-SNR.
      label: [B] int32, if and only if num_classes is set.
      lowres: [B, H, W, c], already upsampled; if and only if the network was
        initialised with it.
      lowres_level: [B] in [0, 1], if and only if the field is set.
      examples: [B] int32, index of each image within the whole batch, which
        determines its dropout; None if these images are the whole batch.
      train: True turns dropout on, which needs the rng 'dropout'.

    Returns:
      float32 [B, H, W, out_channels]. It is zero at initialisation.

    Raises:
      ValueError: an input or a field does not fit the others.
    """
    check_inputs(self, x, noise, label, lowres, lowres_level)
    levels = plan(self, x.shape[1:3])
    emb = mp.silu(self._embed(noise, label, lowres_level))
    run = functools.partial(_run, train=train)
    if self.remat != 'none':
      run = nn.remat(run, policy=layers.REMAT_POLICIES[self.remat])

    def block(h, name, level, **given):
      heads = given.pop('heads', level.num_heads if level.attention else 0)
      layer = self._block(name, level.features, num_heads=heads, **given)
      return run(layer, h, emb, examples)

    if lowres is not None:
      lowres = self.lowres_scale * lowres.astype(x.dtype)
      x = jnp.concatenate([x, lowres], axis=-1)
    # A channel of ones, in the place of biases.
    x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
    dtype = jnp.dtype(self.dtype)
    h = MpConv(levels[0].features, 3, dtype, name='conv_in')(x)
    skips = [h]
    for i, level in enumerate(levels):
      if i:
        name = f'down_{levels[i - 1].name}_to_{level.name}'
        h = run(
          self._block(name, h.shape[-1], is_up=False, resample='half'),
          *(h, emb, examples),
        )
        skips.append(h)
      for j in range(level.num_blocks):
        h = block(h, f'down_{level.name}_block_{j}', level, is_up=False)
        skips.append(h)
    heads = level.num_heads
    h = block(h, 'mid_block_0', level, is_up=True, heads=heads)
    h = block(h, 'mid_block_1', level, is_up=True, heads=0)
    for i, level in reversed(list(enumerate(levels))):
      for j in range(level.num_blocks + 1):
        h = mp.concatenate(h, skips.pop(), self.concat_balance)
        h = block(h, f'up_{level.name}_block_{j}', level, is_up=True)
      if i:
        name = f'up_{level.name}_to_{levels[i - 1].name}'
        h = block(h, name, level, is_up=True, heads=0, resample='double')
    gain = self.param('gain', nn.initializers.zeros, (), jnp.float32)
    return MpConv(self.out_channels, 3, name='conv_out')(h, gain)

  @nn.nowrap
  def project(self, params: dict) -> dict:
    """Returns parameters after a step of training: normalised weights."""
    return mp.normalized_kernels(params)

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    Weights are normalised in float32, and rounded afterwards.

    Args:
      name: name of the parameter.
    """
    del name
    return jnp.dtype(jnp.float32)

  @nn.nowrap
  def _embed(self, noise, label, lowres_level):
    """Returns [B, E] float32, the mixed embeddings of all conditions."""
    first = self.noise_multiplier or self.multipliers[0]
    constants = fourier_constants(int(first * self.features))
    widest = self.embedding_multiplier or max(self.multipliers)
    width = int(widest * self.features)

    def scalar(x, name):
      return MpConv(width, name=name)(fourier_features(x, *constants))

    emb = scalar(noise_label(noise), 'noise')
    if lowres_level is not None:
      level = scalar(lowres_level.astype(jnp.float32), 'lowres_level')
      emb = mp.mix(emb, level, self.level_balance)
    if label is not None:
      classes = self.num_classes
      assert classes is not None  # see `check_inputs`
      # Of magnitude 1. The null class is beyond the last, and so all zeros.
      x = math.sqrt(classes) * jax.nn.one_hot(label, classes)
      emb = mp.mix(emb, MpConv(width, name='label')(x), self.label_balance)
    return emb

  @nn.nowrap
  def _block(self, name, features, *, is_up, num_heads=0, resample=None):
    return Edm2Block(
      features,
      is_up,
      resample=resample,
      num_heads=num_heads,
      dropout=self.dropout,
      residual_balance=self.residual_balance,
      attention_balance=self.attention_balance,
      clip=self.clip,
      resample_filter=tuple(self.resample_filter),
      dtype=jnp.dtype(self.dtype),
      form=self.attention,
      name=name,
    )


def _run(layer, *inputs, train):
  """Calls a block; a free function, so that remat can wrap the call."""
  return layer(*inputs, train=train)
