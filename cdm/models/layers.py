"""Defines the U-Net's layers: residual block, attention, scalar embedding.

Images are [B, H, W, C] throughout, embeddings [B, E]. Parameters are float32;
`dtype` is the dtype of computation. For every `dtype`, the statistics of a
normalisation, the logits and softmax of attention and the embedding of a
scalar are float32, and products of float32 have all of its digits on every
device (see `precision`).

A residual block is y = skip(x) + f(x) with

  f(x) = conv2(dropout(silu(condition(norm2(conv1(silu(norm1(x))))))))

and conv2 is initialised to zero, so that a new block is the identity.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cdm.models import attention_products, precision
from cdm.models.group_norm import GroupNorm, group_count
from cdm.ops import known_platform
from cdm.ops.keys import example_keys

# INIT is [DDPM]'s own initialiser. The last layer of every residual branch is
# initialised by ZERO.
INIT = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
ZERO = nn.initializers.zeros


def _convolutions(prim, *args, **kwargs):
  """Remat policy that saves the outputs of convolutions and projections.

  The batched products of attention are larger than their inputs, so they are
  recomputed.
  """
  keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
  return prim.name == 'conv_general_dilated' or keep(prim, *args, **kwargs)


# See `unet_plan.REMAT`; with 'none' the layers are not wrapped.
REMAT_POLICIES = {
  'convolutions': _convolutions,
  'full': jax.checkpoint_policies.nothing_saveable,
}


def per_channel(a: jax.Array) -> jax.Array:
  """Adds the axes of images to a value per channel: [C] -> [1, 1, 1, C]."""
  return a[None, None, None]


def conv(
  features: int,
  *,
  dtype: Any,
  name: str,
  kernel_init: Any = INIT,
  strides: int = 1,
  one_sided: bool = False,
) -> nn.Conv:
  """Returns a 3x3 convolution that pads one pixel on every side.

  With `one_sided` it pads the lower and the right side alone.
  """
  return nn.Conv(
    features,
    kernel_size=(3, 3),
    strides=strides,
    padding=((0, 1), (0, 1)) if one_sided else ((1, 1), (1, 1)),
    kernel_init=kernel_init,
    dtype=dtype,
    precision=precision.of(dtype),
    name=name,
  )


def dense(
  features: int, *, name: str, dtype: Any = jnp.float32, kernel_init: Any = INIT
) -> nn.Dense:
  """Returns a dense layer over the channels."""
  return nn.Dense(
    features,
    kernel_init=kernel_init,
    dtype=dtype,
    precision=precision.of(dtype),
    name=name,
  )


def on_pixels(layer: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
  """Applies a dense layer to every pixel: [B, H, W, C] -> [B, H, W, D].

  On CPUs all pixels are one axis, because XLA then takes half the time for the
  gradient of the kernel. On TPUs that would copy the map into another layout.
  """
  if known_platform.platform() != 'cpu':
    return layer(x)
  return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def halve(x: jax.Array) -> jax.Array:
  """Averages 2x2 squares: [B, H, W, C] -> [B, H/2, W/2, C]."""
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def double(x: jax.Array) -> jax.Array:
  """Repeats every pixel 2x2 times: [B, H, W, C] -> [B, 2H, 2W, C]."""
  b, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
  return x.reshape(b, 2 * h, 2 * w, c)


def space_to_depth(x: jax.Array, patch_size: int) -> jax.Array:
  """Turns p x p squares into pixels: [B, H, W, C] -> [B, H/p, W/p, p*p*C]."""
  b, h, w, c = x.shape
  p = patch_size
  x = x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h // p, w // p, p * p * c)


def depth_to_space(x: jax.Array, patch_size: int) -> jax.Array:
  """Inverts `space_to_depth`: [B, h, w, p*p*C] -> [B, h*p, w*p, C]."""
  b, h, w, c = x.shape
  p = patch_size
  x = x.reshape(b, h, w, p, p, c // (p * p)).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h * p, w * p, c // (p * p))


def timestep_embedding(
  t: jax.Array, features: int, *, max_period: float = 10_000
) -> jax.Array:
  """Embeds a scalar as sinusoids [cos, sin], ordered and spaced as in [IDDPM].

  The fastest sinusoid turns 1 radian per unit of t, so a scalar in [0, 1] must
  be scaled up first: unscaled, its embedding is almost constant.

  Args:
    t: [B] scalars, fractions allowed.
    features: width of the embedding; an odd one ends in a column of zeros.
    max_period: the slowest sinusoid turns 1 radian in nearly this many units.

  Returns:
    [B, features] in t's floating precision, at least float32.
  """
  half = features // 2
  t = t.astype(jnp.promote_types(t.dtype, jnp.float32))
  periods = max_period ** (np.arange(half) / half)
  angle = t[:, None] * jnp.asarray(1 / periods, t.dtype)[None]  # [B, half]
  embedding = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
  return jnp.pad(embedding, ((0, 0), (0, features % 2)))


class ScalarEmbedding(nn.Module):
  """Embeds one scalar per image: sinusoids, then two dense layers."""

  features: int  # of the sinusoids
  out_features: int
  max_period: float = 10_000  # see `timestep_embedding`

  @nn.compact
  def __call__(self, t):
    """t: [B] -> [B, out_features], float32."""
    h = timestep_embedding(t, self.features, max_period=self.max_period)
    h = dense(self.out_features, name='dense1')(h)
    return dense(self.out_features, name='dense2')(nn.silu(h))


def dropout(
  h: jax.Array, rate: float, key: jax.Array, examples: jax.Array
) -> jax.Array:
  """Sets a random share of the values to zero and scales up the others.

  Args:
    h: [B, ...].
    rate: share of zeros, in [0, 1].
    key: one key for the whole batch.
    examples: int [B], index of each example within the whole batch.

  Returns:
    [B, ...], whose expected value is h (except at rate 1, which gives zeros).
  """
  if rate == 1.0:
    return jnp.zeros_like(h)
  keep = jax.vmap(
    lambda key: jax.random.bernoulli(key, 1.0 - rate, h.shape[1:])
  )
  return jnp.where(keep(example_keys(key, examples)), h / (1.0 - rate), 0.0)


class ResBlock(nn.Module):
  """Residual block whose activations the embedding shifts, or also scales.

  With `resample` the block also changes the resolution, after the first
  activation and on the skip path: the BigGAN block of [SR3] and [ADM].
  """

  features: int
  embedding: str  # 'film' acts after norm2; 'additive' before norm2, [DDPM]
  dropout: float = 0.0
  resample: str | None = None  # 'half', 'double'
  skip_rescale: bool = False  # by 1/sqrt(2), so that variance does not grow
  norm_groups: int = 32
  norm_eps: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, emb, examples=None, *, train):
    """Transforms a feature map, conditioned on an embedding if there is one.

    Args:
      x: [B, H, W, C].
      emb: [B, E] after silu, or None.
      examples: see `dropout`.
      train: True turns dropout on.

    Returns:
      [B, H', W', features].
    """
    h = self._norm(x.shape[-1], 'norm1')(x, silu=True)
    if self.resample:
      resample = {'half': halve, 'double': double}[self.resample]
      h, x = resample(h), resample(x)
    h = conv(self.features, dtype=self.dtype, name='conv1')(h)

    film = None
    if emb is not None and self.embedding == 'film':
      film = dense(2 * self.features, dtype=self.dtype, name='film')(emb)
      film = jnp.split(film, 2, axis=-1)  # scale and shift [B, features]
    elif emb is not None:
      shift = dense(self.features, dtype=self.dtype, name='shift')(emb)
      h += shift[:, None, None]
    h = self._norm(self.features, 'norm2')(h, film, silu=True)
    if train and self.dropout:
      if examples is None:
        examples = jnp.arange(h.shape[0])
      h = dropout(h, self.dropout, self.make_rng('dropout'), examples)
    # The kernel starts at zero, so the block starts as the identity.
    h = conv(self.features, dtype=self.dtype, kernel_init=ZERO, name='conv2')(h)

    if x.shape[-1] != self.features:
      x = on_pixels(dense(self.features, dtype=self.dtype, name='skip'), x)
    return (x + h) * math.sqrt(0.5) if self.skip_rescale else x + h

  @nn.nowrap
  def _norm(self, channels, name):
    groups = group_count(channels, self.norm_groups)
    return GroupNorm(groups, self.norm_eps, self.dtype, name=name)


class Attention(nn.Module):
  """Residual self-attention between all pixels, which starts as the identity.

  The columns of `qkv` are all queries, then all keys, then all values, each
  ordered by head.
  """

  num_heads: int
  norm: bool = True
  skip_rescale: bool = False
  norm_groups: int = 32
  norm_eps: float = 1e-5
  dtype: Any = jnp.float32
  form: str = 'auto'  # of the products, see `attention_products.FORMS`

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> [B, H, W, C]; C is a multiple of num_heads."""
    b, height, width, c = x.shape
    n, d = height * width, c // self.num_heads
    h = x
    if self.norm:
      groups = group_count(c, self.norm_groups)
      h = GroupNorm(groups, self.norm_eps, self.dtype, name='norm')(x)
    qkv = dense(3 * c, dtype=self.dtype, name='qkv')(h.reshape(b, n, c))
    qkv = qkv.reshape(b, n, 3, self.num_heads, d)
    q, k, v = (qkv[:, :, i] for i in range(3))  # [B, N, heads, d]
    h = attention_products.attend(q, k, v, self.form)
    out = dense(c, dtype=self.dtype, kernel_init=ZERO, name='out')
    h = on_pixels(out, h.reshape(b, height, width, c))
    return (x + h) * math.sqrt(0.5) if self.skip_rescale else x + h


def condition_scalar(noise: jax.Array, condition_on: str) -> jax.Array:
  """Returns the scalar by which a noise level is embedded.

  Args:
    noise: [B], the integer t for 't', else the log signal-to-noise ratio.
    condition_on: 't'; 'sqrt_alpha_bar', [SR3]'s and WaveGrad's, in [0, 1]; or
      'logsnr', as 2/pi arctan(exp(-logsnr/2)), in [0, 1] ([PD]).

  Returns:
    [B], floating.
  """
  noise = noise.astype(jnp.promote_types(noise.dtype, jnp.float32))
  if condition_on == 't':
    return noise
  if condition_on == 'sqrt_alpha_bar':
    return jnp.sqrt(jax.nn.sigmoid(noise))
  return jnp.arctan(jnp.exp(-0.5 * noise)) * (2 / math.pi)
