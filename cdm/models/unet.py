"""Defines the U-Net of every stage: base, super-resolution and regression.

The fields of `UNet` select [DDPM]'s, [IDDPM]'s, [ADM]'s or [SR3]'s network:

            resample  embedding  skip_rescale  heads        condition_on
  [DDPM]    conv      additive   no            1            t
  [IDDPM]   conv      film       no            4            t
  [ADM]     biggan    film       no            64 channels  t
  [SR3]     biggan    additive   yes           1            sqrt_alpha_bar

Parameters are named after the feature map they work on, so that their list
reads like a drawing of the network. With two levels of one block each, images
of 64 px and attention at 32 px the parameters are:

  noise, label, lowres_level                 embeddings, summed
  conv_in
  down_64_block_0 {norm1, conv1, film or shift, norm2, conv2, skip}
  down_64_to_32                              a block ('biggan') or a convolution
  down_32_block_0, down_32_attention_0 {norm, qkv, out}
  mid_block_0, mid_attention, mid_block_1
  up_32_block_0, up_32_attention_0, up_32_block_1, up_32_attention_1
  up_32_to_64
  up_64_block_0, up_64_block_1
  norm_out, conv_out

Feature maps that are not square have names such as 64x48. A network can be used
only at the image size that it was initialised with, because the position of its
attention depends on that size.

differs: [DDPM]'s own code pads its halving convolution on two sides only, which
is resample='conv_one_sided', and spaces the sinusoids over one frequency less,
which is another max_period: 10_000 ** (n / (n - 1)) with n = features // 2.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import layers
from cdm.models.group_norm import GroupNorm, group_count
from cdm.models.unet_plan import plan

# Scalars in [0, 1] are scaled to [0, 1000] before they enter the sinusoids.
UNIT_SCALE = 1000.0

# Top-level modules that compute in float32 for every `dtype`.
FLOAT32 = ('noise', 'label', 'lowres_level', 'norm_out', 'conv_out')


class UNet(nn.Module):
  """A U-Net over images, conditioned on noise level, label and low-res image.

  Attributes:
    features: base width; a level has this many channels times its multiplier.
    multipliers: channels of each level over `features`, finest first.
    num_blocks: residual blocks per level on the way down; on the way up it is
      one more. One number for all levels, or one per level.
    out_channels: channels of the image; with learned_variance the output has
      twice as many.
    attention_resolutions: longer sides, in pixels, of the feature maps that
      have attention after every block. The middle always has attention.
    num_heads, head_features: number of attention heads, or the width of one;
      set one of the two. num_heads may be two numbers: that of the way down and
      the middle, and that of the way up.
    dropout: rate in every block, or one rate per level (the middle has that of
      the last level).
    resample: 'biggan' uses residual blocks; 'conv' a strided convolution down,
      and nearest neighbour + convolution up; 'conv_one_sided' the same, but
      the convolution down is padded at the lower and the right edge alone;
      'plain' the mean down and nearest neighbour up.
    embedding: 'film' scales and shifts after a block's second normalisation,
      'additive' adds before it.
    skip_rescale: True multiplies residual sums by 1/sqrt(2), [SR3].
    num_classes: number of classes; labels are then required. None means no
      labels.
    null_class: True adds one class, label num_classes, for images whose label
      was dropped.
    condition_on: the scalar of the noise level that is embedded: 't',
      'sqrt_alpha_bar' or 'logsnr', see `layers.condition_scalar`; or 'nothing',
      for a network that is given no noise level, as [SR3]'s regression.
    condition_scale: factor of that scalar. None means 1 for 't' and 1000 for
      the others, which lie in [0, 1].
    lowres_level: True makes the augmentation level of lowres, in [0, 1], an
      input with its own embedding, [CDM].
    learned_variance: True adds a second set of output channels, [IDDPM].
    patch_size: p; the network works on p x p squares of pixels as if they were
      pixels.
    norm_groups, norm_eps: of GroupNorm; see `group_norm.group_count`.
    max_period: of the sinusoids that embed the noise level, see
      `layers.timestep_embedding`.
    mid_norm: False leaves out the normalisation of the attention in the middle.
    dtype: 'float32' or 'bfloat16', the dtype of computation. Parameters and
      output are float32.
    remat: the activations that the backward pass recomputes instead of keeping
      them in memory, see `unet_plan.REMAT`.
    attention: how attention is computed, see `attention_products.FORMS`; the
      numbers are the same, the memory is not.
  """

  features: int
  multipliers: Sequence[float]
  num_blocks: int | Sequence[int]
  out_channels: int = 3
  attention_resolutions: Sequence[int] = ()
  num_heads: int | Sequence[int] = 1
  head_features: int | None = None
  dropout: float | Sequence[float] = 0.0
  resample: str = 'biggan'
  embedding: str = 'film'
  skip_rescale: bool = False
  num_classes: int | None = None
  null_class: bool = False
  condition_on: str = 't'
  condition_scale: float | None = None
  lowres_level: bool = False
  learned_variance: bool = False
  patch_size: int = 1
  norm_groups: int = 32
  norm_eps: float = 1e-5
  max_period: float = 10_000.0
  mid_norm: bool = True
  dtype: str = 'float32'
  remat: str = 'none'
  attention: str = 'auto'

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    noise: jax.Array | None,
    *,
    label: jax.Array | None = None,
    lowres: jax.Array | None = None,
    lowres_level: jax.Array | None = None,
    examples: jax.Array | None = None,
    train: bool,
  ) -> jax.Array:
    """Returns one prediction per image.

    Args:
      x: [B, H, W, out_channels] noisy images.
      noise: [B], t if condition_on is 't', else the log-SNR; None if the
        network is conditioned on nothing.
      label: [B] int32, if and only if num_classes is set. Its values cannot be
        checked under jit, so check them where labels are read.
      lowres: [B, H, W, c], already upsampled; if and only if the network was
        initialised with it.
      lowres_level: [B] in [0, 1], if and only if the field is set.
      examples: [B] int32, index of each image within the whole batch, which
        determines its dropout; None if these images are the whole batch.
      train: True turns dropout on, which needs the rng 'dropout'.

    Returns:
      float32 [B, H, W, out_channels], with learned_variance twice as many
      channels. It is zero at initialisation.

    Raises:
      ValueError: an input or a field does not fit the others.
    """
    check_inputs(self, x, noise, label, lowres, lowres_level)
    levels = plan(self, x.shape[1:3])
    _check_parameters(self, levels, x, lowres)
    dtype = jnp.dtype(self.dtype)
    emb = self._embed(noise, label, lowres_level)
    if emb is not None:
      emb = nn.silu(emb).astype(dtype)

    run = functools.partial(_run, train=train)
    if self.remat != 'none':
      run = nn.remat(run, policy=layers.REMAT_POLICIES[self.remat])

    def block(h, name, level, resample=None):
      return run(self._block(name, level, resample), h, emb, examples)

    def attend(h, name, num_heads, norm=True):
      return run(self._attention(name, num_heads, norm), h)

    if lowres is not None:
      x = jnp.concatenate([x, lowres.astype(x.dtype)], axis=-1)
    h = layers.space_to_depth(x, self.patch_size).astype(dtype)
    h = layers.conv(levels[0].features, dtype=dtype, name='conv_in')(h)

    skips = [h]
    for level, coarser in zip(levels, (*levels[1:], None), strict=True):
      for i in range(level.num_blocks):
        h = block(h, f'down_{level.name}_block_{i}', level)
        if level.attention:
          name = f'down_{level.name}_attention_{i}'
          h = attend(h, name, level.num_heads)
        skips.append(h)
      if coarser:
        name = f'down_{level.name}_to_{coarser.name}'
        if self.resample == 'biggan':
          h = block(h, name, level, 'half')
        elif self.resample == 'plain':
          h = layers.halve(h)
        else:
          h = layers.conv(
            level.features,
            dtype=dtype,
            name=name,
            strides=2,
            one_sided=self.resample == 'conv_one_sided',
          )(h)
        skips.append(h)

    h = block(h, 'mid_block_0', level)
    h = attend(h, 'mid_attention', level.num_heads, self.mid_norm)
    h = block(h, 'mid_block_1', level)

    for level, finer in zip(levels[::-1], (*levels[-2::-1], None), strict=True):
      for i in range(level.num_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, f'up_{level.name}_block_{i}', level)
        if level.attention:
          heads = level.up_heads or level.num_heads
          h = attend(h, f'up_{level.name}_attention_{i}', heads)
      if finer:
        name = f'up_{level.name}_to_{finer.name}'
        if self.resample == 'biggan':
          h = block(h, name, level, 'double')
        else:
          h = layers.double(h)
          if self.resample != 'plain':
            h = layers.conv(level.features, dtype=dtype, name=name)(h)

    # All is float32 from here on, because the prediction needs its last digits.
    groups = group_count(h.shape[-1], self.norm_groups)
    h = GroupNorm(groups, self.norm_eps, name='norm_out')(h, silu=True)
    h = layers.conv(
      self.out_channels * (1 + self.learned_variance) * self.patch_size**2,
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
      name: name of the parameter, such as 'mid_block_0/conv1/kernel'.
    """
    *modules, _ = name.split('/')
    if modules[0] in FLOAT32 or modules[-1].startswith('norm'):
      return jnp.dtype(jnp.float32)
    return jnp.dtype(self.dtype)

  @nn.nowrap
  def _embed(self, noise, label, lowres_level):
    """Returns [B, E] float32, the sum of the embeddings of all conditions.

    None if there are none.
    """
    width = 4 * self.features
    scalar = functools.partial(layers.ScalarEmbedding, self.features, width)
    found = []
    if noise is not None:
      scale = self.condition_scale
      if scale is None:
        scale = 1.0 if self.condition_on == 't' else UNIT_SCALE
      level = layers.condition_scalar(noise, self.condition_on)
      noise_scalar = scalar(max_period=self.max_period, name='noise')
      found.append(noise_scalar(scale * level))
    if label is not None:
      assert self.num_classes is not None  # see `check_inputs`
      rows = self.num_classes + self.null_class
      init = nn.initializers.normal(1.0)
      embed = nn.Embed(rows, width, embedding_init=init, name='label')
      found.append(embed(label))
    if lowres_level is not None:
      found.append(scalar(name='lowres_level')(UNIT_SCALE * lowres_level))
    return functools.reduce(jnp.add, found) if found else None

  @nn.nowrap
  def _block(self, name, level, resample):
    return layers.ResBlock(
      features=level.features,
      embedding=self.embedding,
      dropout=level.dropout,
      resample=resample,
      skip_rescale=self.skip_rescale,
      norm_groups=self.norm_groups,
      norm_eps=self.norm_eps,
      dtype=jnp.dtype(self.dtype),
      name=name,
    )

  @nn.nowrap
  def _attention(self, name, num_heads, norm):
    return layers.Attention(
      num_heads=num_heads,
      norm=norm,
      skip_rescale=self.skip_rescale,
      norm_groups=self.norm_groups,
      norm_eps=self.norm_eps,
      dtype=jnp.dtype(self.dtype),
      form=self.attention,
      name=name,
    )


def check_inputs(
  net: Any,
  x: jax.Array,
  noise: jax.Array | None,
  label: jax.Array | None,
  lowres: jax.Array | None,
  lowres_level: jax.Array | None,
) -> None:
  """Raises ValueError if an input is missing, unwanted or of a wrong shape.

  Args:
    net: a network with the fields of a `UNet` that name its inputs.
    x, noise, label, lowres, lowres_level: see `UNet.__call__`.
  """
  if x.ndim != 4:
    raise ValueError(f'Images have shape {x.shape}; expected [B, H, W, C].')
  b, height, width, c = x.shape
  if c != net.out_channels:
    raise ValueError(
      f'Images have {c} channels; this network has {net.out_channels}.'
    )
  for name, value, wanted, given in (
    ('label', label, net.num_classes is not None, 'num_classes'),
    ('lowres_level', lowres_level, net.lowres_level, 'lowres_level'),
    ('noise', noise, net.condition_on != 'nothing', 'condition_on'),
  ):
    if (value is not None) != wanted:
      raise ValueError(
        f'{name} is {"needed" if wanted else "given"}, but '
        f'{"was not given" if wanted else "not used"}: the field {given} is '
        f'{getattr(net, given)}.'
      )
  if lowres_level is not None and lowres is None:
    raise ValueError('lowres_level was given without lowres.')
  for name, value in (
    ('noise', noise),
    ('label', label),
    ('lowres_level', lowres_level),
  ):
    if value is not None and value.shape != (b,):
      raise ValueError(
        f'{name} has shape {value.shape}; expected one per image, ({b},).'
      )
  if lowres is not None and lowres.shape[:3] != (b, height, width):
    raise ValueError(
      f'lowres has shape {lowres.shape}; expected [{b}, {height}, {width}, c], '
      'upsampled to the size of the image.'
    )


def _check_parameters(net, levels, x, lowres):
  """Raises ValueError if the parameters are for another size or lowres."""
  if net.is_initializing():
    return
  params = net.variables['params']
  if f'down_{levels[0].name}_block_0' not in params:
    maps = [n.split('_')[1] for n in params if n.startswith('down_')]
    raise ValueError(
      f'Images of {x.shape[2]}x{x.shape[1]} pixels start with a feature map of '
      f'{levels[0].name}; this network was initialised with one of '
      f'{max(maps, key=lambda name: int(name.split("x")[0]))}.'
    )
  channels = params['conv_in']['kernel'].shape[2] // net.patch_size**2
  expected = channels - x.shape[3]
  actual = 0 if lowres is None else lowres.shape[3]
  if actual != expected:
    raise ValueError(
      f'lowres has {actual} channels; this network was initialised with '
      f'{expected}' + (', without lowres.' if expected == 0 else '.')
    )


def _run(layer, *inputs, train):
  """Calls a layer; a free function, so that remat can wrap the call."""
  if isinstance(layer, layers.ResBlock):
    return layer(*inputs, train=train)
  return layer(*inputs)
