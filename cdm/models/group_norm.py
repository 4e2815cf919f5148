"""Group normalisation with what follows it, as one function of its input.

A normalised feature map is scaled and shifted, by its own parameters and often
by an embedding (FiLM), and then goes through SiLU. Step by step, a gradient
would keep the map after each of these, and sum over it for each. Here all is

  y = silu(gain (x - mean) / sqrt(variance + eps) + shift)

with one gain and shift per image and channel. The gradient keeps x and a few
numbers per channel, and reads x and the gradient of y twice.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# The name under which a gradient keeps mean and 1 / sqrt(variance + eps).
STATISTICS = 'group_norm_statistics'


def group_count(channels: int, norm_groups: int) -> int:
  """Returns the number of groups of a group normalisation.

  It is `norm_groups` if that divides the channels, as in every published
  network. Otherwise (few channels, or a sum of two widths) it is the largest
  common divisor that leaves at least 4 channels in a group, so that 16 channels
  are not normalised one by one, as by an instance normalisation.
  """
  if channels % norm_groups == 0:
    return norm_groups
  both = math.gcd(channels, norm_groups)
  fits = [n for n in range(1, both + 1) if both % n == 0 and channels // n >= 4]
  return max(fits, default=1)


class GroupNorm(nn.Module):
  """Group normalisation, computed in float32; see `normalised`."""

  num_groups: int
  eps: float
  dtype: Any = jnp.float32  # of the output

  @nn.compact
  def __call__(self, x, film=None, *, silu=False):
    """Normalises a feature map.

    Args:
      x: [B, H, W, C].
      film: (scale, shift), [B, C] each, or None. The normalised map is
        multiplied by 1 + scale, then shift is added.
      silu: whether SiLU follows.

    Returns:
      [B, H, W, C] of `dtype`.
    """
    b, c = x.shape[0], x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (c,))
    bias = self.param('bias', nn.initializers.zeros, (c,))
    gain, shift = (jnp.broadcast_to(a, (b, c)) for a in (scale, bias))
    if film is not None:
      film_scale, film_shift = (a.astype(gain.dtype) for a in film)
      gain, shift = (a * (1 + film_scale) for a in (gain, shift))
      shift += film_shift
    return normalised(
      x,
      gain,
      shift,
      num_groups=self.num_groups,
      eps=self.eps,
      silu=silu,
      dtype=self.dtype,
    )


def normalised(
  x: jax.Array,
  gain: jax.Array,
  shift: jax.Array,
  *,
  num_groups: int,
  eps: float,
  silu: bool,
  dtype: Any,
) -> jax.Array:
  """Normalises, scales and shifts a feature map; SiLU may follow.

  Mean and variance take two passes, because E[x^2] - E[x]^2 loses its digits
  when the mean is large. Both passes reduce over pixels first and over the few
  channels of a group last, so that channels remain the contiguous axis.

  Args:
    x: [B, H, W, C]. What is computed is at least float32.
    gain, shift: [B, C].
    num_groups: number of groups of channels; it divides C.
    eps: what is added to a variance.
    silu: whether SiLU follows.
    dtype: of the result.

  Returns:
    [B, H, W, C].
  """

  def function(x, gain, shift):
    # A gradient keeps the x that it is given here, so in the dtype of x.
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _normalised(num_groups, eps, silu, x, gain, shift).astype(dtype)

  keep_statistics = jax.checkpoint_policies.save_only_these_names(STATISTICS)
  return jax.checkpoint(function, policy=keep_statistics)(x, gain, shift)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _normalised(num_groups, eps, silu, x, gain, shift):
  z, _ = _before_silu(num_groups, eps, x, gain, shift)
  return nn.silu(z) if silu else z


@_normalised.defjvp
def _normalised_jvp(num_groups, eps, silu, primals, tangents):
  """Writes the tangent with two sums over pixels, which its transpose keeps.

  With d = x - mean and r = 1 / sqrt(variance + eps), over the n values of a
  group, the tangent of z = gain r d + shift is

    dz = gain r (dx - mean(dx) - d r^2 mean(d dx)) + r d dgain + dshift
  """
  _, gain, _ = primals
  dx, dgain, dshift = tangents
  z, (d, r) = _before_silu(num_groups, eps, *primals)
  slope = gain * r
  mean_dx = _group_mean(dx, num_groups)
  mean_ddx = _group_mean(d * dx, num_groups)
  per_pixel = r * dgain - slope * r**2 * mean_ddx
  per_channel = dshift - slope * mean_dx
  dz = _on_pixels(slope) * dx
  dz += _on_pixels(per_pixel) * d + _on_pixels(per_channel)
  if not silu:
    return z, dz
  s = jax.nn.sigmoid(z)
  return z * s, dz * (s * (1 + z * (1 - s)))


def _before_silu(num_groups, eps, x, gain, shift):
  """Returns (z [B, H, W, C], (x - mean, 1 / sqrt(variance + eps) [B, C]))."""
  mean = checkpoint_name(_group_mean(x, num_groups), STATISTICS)
  d = x - _on_pixels(mean)
  variance = _group_mean(d * d, num_groups)
  r = checkpoint_name(jax.lax.rsqrt(variance + eps), STATISTICS)
  return d * _on_pixels(gain * r) + _on_pixels(shift), (d, r)


def _group_mean(x: jax.Array, num_groups: int) -> jax.Array:
  """Averages over pixels and groups: [B, H, W, C] -> [B, C]."""
  mean = x.mean(axis=(1, 2))
  b, c = mean.shape
  mean = mean.reshape(b, num_groups, -1)
  mean = jnp.broadcast_to(mean.mean(axis=-1, keepdims=True), mean.shape)
  return mean.reshape(b, c)


def _on_pixels(a: jax.Array) -> jax.Array:
  """Adds the axes of pixels: [B, C] -> [B, 1, 1, C]."""
  return a[:, None, None]
