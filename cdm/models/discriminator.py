"""Defines a convolutional discriminator, for images of any of many sizes.

  image [B, H, W, 3] -> conv 4x4, stride 2, leaky ReLU, ... -> logit [B]

The logit is above 0 where the image is taken for an original. The condition, if
there is one, is an image of the same size beside it, as in [pix2pix].

differs: there is no normalisation over the batch, with which the logit of an
image would depend on the others (and the loss of an example with it). Training
is kept stable by R1 ([Mescheder et al. 2018]), by spectral normalisation
([Miyato et al. 2018]), or by both.

Spectral normalisation divides a kernel by its largest singular value. differs:
that value is found anew in every pass, by some power iterations from a constant
start, not by one iteration from a vector that is kept beside the parameters. So
the discriminator has no state, and a resumed run needs none.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cdm.models import precision

DTYPES = ('float32', 'bfloat16')  # as a config names them
SLOPE = 0.2  # of a leaky ReLU below 0, [DCGAN]
# Images are halved as long as they are larger than this and even. What is left
# may be odd, but no larger than the second number: one kernel sees all of it.
SMALLEST_SIDE, LARGEST_LAST_SIDE = 4, 7
# The singular value is then within 2% for the kernels of a new network.
POWER_ITERATIONS = 8
_INIT = nn.initializers.variance_scaling(
  2.0 / (1.0 + SLOPE**2), 'fan_in', 'normal'
)


class Discriminator(nn.Module):
  """A discriminator, from images to one logit each.

  Attributes:
    features: channels of the first convolution; each halving doubles them.
    max_features: the most channels.
    spectral_norm: whether every kernel is divided by its largest singular
      value.
    dtype: of computation; logits are float32.
  """

  features: int = 64
  max_features: int = 512
  spectral_norm: bool = False
  dtype: Any = jnp.float32

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter."""
    return jnp.dtype(self.dtype)

  @nn.compact
  def __call__(
    self, image: jax.Array, condition: jax.Array | None = None
  ) -> jax.Array:
    """Computes logits.

    Args:
      image: [B, S, S, 3] in [-1, 1].
      condition: [B, S, S, C], an image that belongs to each; None if the
        discriminator sees images alone.

    Returns:
      [B] float32.
    """
    check(self, image.shape[1])
    x = image
    if condition is not None:
      x = jnp.concatenate([image, condition], axis=-1)
    h, features = x.astype(self.dtype), self.features
    for i in range(num_halvings(image.shape[1])):
      h = self._conv(features, 4, 2, f'conv_{i}')(h)
      h = nn.leaky_relu(h, SLOPE)
      features = min(2 * features, self.max_features)
    h = self._conv(features, 3, 1, 'last')(h)
    h = nn.leaky_relu(h, SLOPE)
    # One kernel as large as the map: the logit sees all of it.
    logit = self._conv(1, h.shape[1], None, 'logit')(h)
    return logit[:, 0, 0, 0].astype(jnp.float32)

  @nn.nowrap
  def _conv(self, features, side, strides, name):
    return Conv(
      features, side, strides, self.spectral_norm, self.dtype, name=name
    )


class Conv(nn.Module):
  """A square convolution, whose kernel may be normalised by its spectrum."""

  features: int
  side: int
  strides: int | None  # None for a kernel as large as the map
  spectral_norm: bool
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> [B, H', W', features]."""
    shape = (self.side, self.side, x.shape[-1], self.features)
    kernel = self.param('kernel', _INIT, shape).astype(jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    if self.spectral_norm:
      kernel /= spectral_norm(kernel.reshape(-1, self.features))
    padding = (self.side - 1) // 2
    y = jax.lax.conv_general_dilated(
      x,
      kernel.astype(self.dtype),
      window_strides=(self.strides or 1,) * 2,
      padding=[(padding, padding)] * 2 if self.strides else 'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=precision.of(self.dtype),
    )
    return y + bias.astype(self.dtype)[None, None, None]


def spectral_norm(
  matrix: jax.Array, iterations: int = POWER_ITERATIONS
) -> jax.Array:
  """Estimates the largest singular value of a matrix by power iteration.

  The singular vectors count as constants in its gradient, which then is that of
  the singular value.

  Args:
    matrix: [M, N].
    iterations: number of power iterations; more come nearer from below.

  Returns:
    [], float32.
  """
  start = np.random.default_rng(0).normal(size=matrix.shape[1])
  u = jnp.asarray(start / np.linalg.norm(start), jnp.float32)
  constant = jax.lax.stop_gradient(matrix)
  product = functools.partial(jnp.matmul, precision=precision.HIGHEST)
  v = _unit(product(constant, u))
  for _ in range(iterations):
    u = _unit(product(v, constant))
    v = _unit(product(constant, u))
  return product(product(v, matrix), u)


def _unit(x):
  return x / (jnp.sqrt((x * x).sum()) + 1e-12)


def num_halvings(side: int) -> int:
  """Returns how often images of this side are halved."""
  count = 0
  while side % 2 == 0 and side > SMALLEST_SIDE:
    side //= 2
    count += 1
  return count


def check(net: Discriminator, image_size: int) -> None:
  """Raises ValueError for what no discriminator can have; it is named.

  Args:
    net: the network.
    image_size: S = H = W of its images.
  """
  if isinstance(net.dtype, str) and net.dtype not in DTYPES:
    raise ValueError(f'dtype is {net.dtype!r}; known are {", ".join(DTYPES)}.')
  for field in ('features', 'max_features'):
    if getattr(net, field) < 1:
      raise ValueError(
        f'{field} is {getattr(net, field)}; it must be at least 1.'
      )
  last = image_size // 2 ** num_halvings(image_size)
  if last > LARGEST_LAST_SIDE:
    near = 2 ** max(round(math.log2(image_size)), 3)
    raise ValueError(
      f'image_size is {image_size}, of which {last} pixels are left when it '
      f'is halved as often as it can be; a discriminator takes sizes of which '
      f'at most {LARGEST_LAST_SIDE} are left, such as {near}.'
    )
