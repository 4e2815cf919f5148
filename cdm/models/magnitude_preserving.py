"""Layers that keep the magnitude of what they are given, [EDM2].

  normalize(x) = x / (|x| / sqrt(n) + 1e-4), of n values         eq. 47, 66
  silu(x) = SiLU(x) / 0.596                                      eq. 81
  mix(a, b, t) = ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)       eq. 88
  concatenate(a, b, t) = sqrt((Na + Nb) / ((1 - t)^2 + t^2))
                         [(1 - t) a / sqrt(Na), t b / sqrt(Nb)]  eq. 103

The magnitude of an array is the root mean square of its values. Inputs that are
uncorrelated and of magnitude 1 give outputs of magnitude 1, whatever the
weights are, because a layer divides the weights of each output by their
magnitude. A training step divides the stored weights too, see
`normalized_kernels`: a weight is then always as large as all others, and a
learning rate means the same in every layer and at every step.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cdm.models import layers, precision

# Keeps the division finite; so the magnitude of stored weights is 1 - 1e-4.
EPS = 1e-4
# The magnitude of SiLU of a standard normal, as [EDM2] rounds it.
_SILU_GAIN = 0.596
# The name of every parameter that `MpConv` normalises.
KERNEL = 'kernel'


def normalize(x: jax.Array, axes: Sequence[int]) -> jax.Array:
  """Divides by the magnitude over some axes, [EDM2] eq. 47.

  Args:
    x: any array; the magnitude is computed in float32 or better.
    axes: the axes over which the result has magnitude 1.

  Returns:
    An array of the shape and dtype of x; zeros stay zeros.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  count = math.prod(x.shape[axis] for axis in axes)
  square = jnp.sum(jnp.square(wide), axis=tuple(axes), keepdims=True)
  # The gradient of a square root is infinite at 0, where all values are 0.
  safe = jnp.where(square > 0, square, 1.0)
  norm = jnp.where(square > 0, jnp.sqrt(safe), 0.0)
  return x / (EPS + norm / math.sqrt(count)).astype(x.dtype)


def normalize_kernel(kernel: jax.Array) -> jax.Array:
  """Divides the weights of every output by their magnitude, [EDM2] eq. 66.

  Args:
    kernel: [..., I, O], or [I] of a single output.
  """
  return normalize(kernel, range(max(kernel.ndim - 1, 1)))


def normalized_kernels(params: Any) -> Any:
  """Normalises the stored weights, as after every step of training.

  [EDM2] calls it forced weight normalisation. Without it a gradient, which is
  orthogonal to the weights, would make them grow for ever, and ever slower to
  turn.

  Args:
    params: tree of parameters, of which those named 'kernel' are weights.

  Returns:
    The same tree; gains stay as they are.
  """

  def one(path, x):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return normalize_kernel(x) if name == KERNEL else x

  return jax.tree_util.tree_map_with_path(one, params)


def initial_kernel(key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
  """Draws standard normal weights and normalises them, an initialiser."""
  return normalize_kernel(jax.random.normal(key, shape, dtype))


def silu(x: jax.Array) -> jax.Array:
  """SiLU that keeps the magnitude of a standard normal, [EDM2] eq. 81."""
  return nn.silu(x) / _SILU_GAIN


def mix(a: jax.Array, b: jax.Array, t: float) -> jax.Array:
  """Adds two arrays that are not correlated, [EDM2] eq. 88.

  Args:
    a, b: arrays of one shape.
    t: from 0, which is a alone, to 1, which is b.
  """
  return (a + t * (b - a)) / math.sqrt((1 - t) ** 2 + t**2)


def concatenate(a: jax.Array, b: jax.Array, t: float) -> jax.Array:
  """Joins the channels of two feature maps, [EDM2] eq. 103.

  Args:
    a, b: [..., Na] and [..., Nb].
    t: share of the contribution of b to a layer that follows, whatever the
      numbers of channels.
  """
  n_a, n_b = a.shape[-1], b.shape[-1]
  scale = math.sqrt((n_a + n_b) / ((1 - t) ** 2 + t**2))
  parts = [
    a * (scale * (1 - t) / math.sqrt(n_a)),
    b * (scale * t / math.sqrt(n_b)),
  ]
  return jnp.concatenate(parts, axis=-1)


def resample(x: jax.Array, how: str | None, taps: Sequence[float]) -> jax.Array:
  """Halves or doubles a feature map with a separable filter.

  Args:
    x: [B, H, W, C].
    how: 'half', 'double', or None, which changes nothing.
    taps: the filter along an axis, of an even length; (1, 1) is the mean of a
      square, or the repetition of a pixel.
  """
  if how is None:
    return x
  if tuple(taps) == (1, 1):
    return layers.halve(x) if how == 'half' else layers.double(x)
  length, channels = len(taps), x.shape[-1]
  row = np.asarray(taps, np.float64) / sum(taps)
  window = np.outer(row, row) * (1 if how == 'half' else 4)
  kernel = jnp.asarray(window, x.dtype)[:, :, None, None]
  kernel = jnp.broadcast_to(kernel, (length, length, 1, channels))
  pad = length // 2 - 1
  pad = pad if how == 'half' else length - 1 - pad
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(2, 2) if how == 'half' else (1, 1),
    padding=((pad, pad), (pad, pad)),
    lhs_dilation=(1, 1) if how == 'half' else (2, 2),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=channels,
    precision=precision.of(x.dtype),
  )


class MpConv(nn.Module):
  """A layer without a bias whose weights are normalised, [EDM2] eq. 47.

  Attributes:
    features: number of output channels.
    window: 3 for a convolution over 3 x 3 pixels; 1 for a product over the
      channels of every pixel, or of a vector.
    dtype: of computation; the weights are normalised in float32.
  """

  features: int
  window: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, gain: jax.Array | float = 1.0) -> jax.Array:
    """x: [B, H, W, C] or [B, C]; gain: [] -> [..., features]."""
    fan_in = x.shape[-1] * self.window**2
    shape = (x.shape[-1], self.features)
    if self.window > 1:
      shape = (self.window, self.window, *shape)
    kernel = self.param(KERNEL, initial_kernel, shape, jnp.float32)
    kernel = normalize_kernel(kernel) * (gain / math.sqrt(fan_in))
    kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
    exact = precision.of(self.dtype)
    if self.window == 1:
      product = lambda x: jnp.matmul(x, kernel, precision=exact)  # noqa: E731
      return layers.on_pixels(product, x) if x.ndim == 4 else product(x)
    pad = self.window // 2
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(1, 1),
      padding=((pad, pad), (pad, pad)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=exact,
    )
