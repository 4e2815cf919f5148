"""Residual networks that work at low-res and enlarge what they found.

Blocks at the size of the low-res image, then a transposed convolution wherever
the size doubles, with blocks again. [PRSR] has such a network twice: below the
logits of `pixel_recursive`, and as its regression, "similar to SRResNet".

  {conv_in, block_x1_0, ..., deconv_x2, block_x2_0, ..., conv_out}

differs: the residual blocks of [PRSR] normalise by the batch. Here they
normalise by groups of channels of one image, so that an image is the same
whatever batch it is drawn in, and in training as in drawing.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cdm.models import layers, precision
from cdm.models.group_norm import GroupNorm, group_count

# The least of each number of a network, and the most.
RANGES = {
  'features': (1, 65_536),
  'num_blocks': (0, 1000),
  'norm_groups': (1, 65_536),
}
DTYPES = ('float32', 'bfloat16')


class ResidualBlock(nn.Module):
  """x + norm(conv(relu(norm(conv(x))))), [PRSR] fig. 3."""

  norm_groups: int
  norm_eps: float
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, F] -> [B, H, W, F]."""
    f = x.shape[-1]
    groups = group_count(f, self.norm_groups)
    norm = functools.partial(GroupNorm, groups, self.norm_eps, self.dtype)
    h = layers.conv(f, dtype=self.dtype, name='conv1')(x)
    h = nn.relu(norm(name='norm1')(h))
    h = layers.conv(f, dtype=self.dtype, name='conv2')(h)
    return x + norm(name='norm2')(h)


def enlarged_features(
  lowres: jax.Array,
  *,
  magnification: int,
  features: int,
  num_blocks: int,
  norm_groups: int,
  norm_eps: float,
  dtype: Any,
) -> jax.Array:
  """Computes features of the enlarged image; part of a module's call.

  Args:
    lowres: [B, h, w, 3] in [-1, 1].
    magnification: H / h, a power of two.
    features: F, the width.
    num_blocks: residual blocks at each size.
    norm_groups, norm_eps: of GroupNorm; see `group_norm.group_count`.
    dtype: dtype of computation.

  Returns:
    [B, H, W, F].
  """
  h = layers.dense(features, dtype=dtype, name='conv_in')(lowres)
  for i in range(magnification.bit_length()):
    if i:
      h = nn.ConvTranspose(
        features,
        (3, 3),
        strides=(2, 2),
        kernel_init=layers.INIT,
        dtype=dtype,
        precision=precision.of(dtype),
        name=f'deconv_x{2**i}',
      )(h)
      h = nn.relu(h)
    for k in range(num_blocks):
      h = ResidualBlock(
        norm_groups, norm_eps, dtype, name=f'block_x{2**i}_{k}'
      )(h)
  return h


class EnlargingResnet(nn.Module):
  """Predicts the image from the low-res image alone; sizes are [PRSR]'s.

  Attributes:
    magnification: H / h, a power of two.
    features: width.
    num_blocks: residual blocks at each size.
    norm_groups, norm_eps: of GroupNorm; see `group_norm.group_count`.
    dtype: 'float32' or 'bfloat16', the dtype of computation. Parameters and
      the image are float32.
  """

  magnification: int
  features: int = 32
  num_blocks: int = 6
  norm_groups: int = 8
  norm_eps: float = 1e-5
  dtype: str = 'float32'

  # The network takes no labels.
  num_classes = None
  null_class = False

  @nn.compact
  def __call__(
    self,
    lowres: jax.Array,
    noise: None = None,
    *,
    label: None = None,
    train: bool,
    examples: Any = None,
  ) -> jax.Array:
    """Computes the image, or what the upsampled low-res image lacks.

    Args:
      lowres: [B, h, w, 3] in [-1, 1].
      noise, label: None.
      train, examples: as of every network; nothing depends on them here.

    Returns:
      float32 [B, H, W, 3].
    """
    del noise, label, train, examples
    h = enlarged_features(
      lowres,
      magnification=self.magnification,
      features=self.features,
      num_blocks=self.num_blocks,
      norm_groups=self.norm_groups,
      norm_eps=self.norm_eps,
      dtype=jnp.dtype(self.dtype),
    )
    # The image starts at grey.
    conv_out = layers.dense(3, kernel_init=layers.ZERO, name='conv_out')
    return conv_out(h.astype(jnp.float32))

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    Normalisations and the last layer are used in float32.

    Args:
      name: name of the parameter, such as 'block_x1_0/conv1/kernel'.
    """
    *modules, _ = name.split('/')
    if modules[-1] == 'conv_out' or modules[-1].startswith('norm'):
      return jnp.dtype(jnp.float32)
    return jnp.dtype(self.dtype)


def check(net: EnlargingResnet) -> None:
  """Raises ValueError for a field that no network can have; it is named."""
  check_fields(net, RANGES)


def check_fields(net: Any, ranges: Mapping[str, tuple[int, int]]) -> None:
  """Raises ValueError for a field outside of its range.

  Args:
    net: a network with `norm_eps` and `dtype` besides.
    ranges: {field: (the least, the most)}.
  """
  for field, (least, most) in ranges.items():
    value = getattr(net, field)
    if not least <= value <= most:
      raise ValueError(
        f'{field} is {value}; it must be from {least} to {most:,}.'
      )
  if not net.norm_eps > 0:
    raise ValueError(f'norm_eps is {net.norm_eps}; it must be above 0.')
  if net.dtype not in DTYPES:
    raise ValueError(f'dtype is {net.dtype!r}; known are {", ".join(DTYPES)}.')
