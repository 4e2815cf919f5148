"""Predicts the log of the loss at a noise level, [EDM2].

  u(s) = kernel . sqrt(2 / F) cos(frequency ln(s) / 4 + phase)

It is a linear layer on F fixed Fourier features of the noise level s = sigma /
alpha, and 0 at initialisation unless its kernel is normalised. A loss is
trained as (L / e^u) + u, which is least where u = ln E[L] at that level.
"""

import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cdm.models import magnitude_preserving


class LossUncertainty(nn.Module):
  """The layer u of the log-SNR.

  differs: [EDM2] draws its frequencies and phases at random, and they are part
  of its checkpoints. Here they are those of `fourier_constants`, so nothing has
  to be stored. [EDM2]'s kernel has a fixed magnitude and a random direction;
  ours is free, and 0, unless `is_normalized`.

  Attributes:
    features: number of Fourier features.
    is_normalized: whether the kernel is [EDM2]'s, see `magnitude_preserving`.
  """

  features: int = 128
  is_normalized: bool = False

  @nn.compact
  def __call__(self, logsnr: jax.Array) -> jax.Array:
    """logsnr: [B], finite -> [B] float32."""
    x = fourier_features(noise_label(logsnr), *fourier_constants(self.features))
    # One axis, so that no default rule splits it over the devices.
    init = nn.initializers.zeros
    if self.is_normalized:
      init = magnitude_preserving.initial_kernel
    kernel = self.param('kernel', init, (self.features,), jnp.float32)
    if self.is_normalized:
      kernel = magnitude_preserving.normalize_kernel(kernel)
    return jnp.sum(x * kernel[None], axis=-1) / math.sqrt(self.features)

  @nn.nowrap
  def project(self, params: dict) -> dict:
    """Returns parameters after a step of training: normalised, or as given."""
    if not self.is_normalized:
      return params
    return magnitude_preserving.normalized_kernels(params)


def noise_label(logsnr: jax.Array) -> jax.Array:
  """Returns ln(s) / 4 of log-SNRs in float32, c_noise of [EDM] tab. 1."""
  return -0.125 * logsnr.astype(jnp.float32)


def fourier_constants(features: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns frequencies and phases as [EDM2] eq. 75 draws them.

  They are not drawn but the quantiles of its laws, a normal of deviation 2 pi
  and a uniform over 2 pi.

  Args:
    features: F, how many.

  Returns:
    (frequencies, phases), each float32 [F], in radians.
  """
  normal = statistics.NormalDist(sigma=2 * math.pi)
  order = np.arange(features)
  frequencies = [normal.inv_cdf((i + 0.5) / features) for i in order.tolist()]
  # The golden ratio spreads the phases of neighbouring frequencies.
  phases = 2 * math.pi * (order * (math.sqrt(5) - 1) / 2 % 1)
  return np.asarray(frequencies, np.float32), np.asarray(phases, np.float32)


def fourier_features(
  x: jax.Array,
  frequencies: jax.Array | np.ndarray,
  phases: jax.Array | np.ndarray,
) -> jax.Array:
  """Returns [EDM2]'s features, of unit variance over the phases.

  Args:
    x: [B].
    frequencies, phases: [F], in radians.

  Returns:
    [B, F], sqrt(2) cos(x frequencies + phases).
  """
  return math.sqrt(2) * jnp.cos(x[:, None] * frequencies[None] + phases[None])
