"""Predicts the log of the loss at a noise level, [EDM2].

  u(s) = kernel . sqrt(2 / F) cos(frequency ln(s) / 4 + phase)

It is a linear layer on F fixed Fourier features of the noise level s = sigma /
alpha, and 0 at initialisation. A loss is trained as (L / e^u) + u, which is
least where u = ln E[L] at that level.
"""

import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class LossUncertainty(nn.Module):
  """The layer u of the log-SNR.

  differs: [EDM2] draws its frequencies and phases at random, and they are part
  of its checkpoints. Here they are the quantiles of the same laws, a normal of
  deviation 2 pi and a uniform over 2 pi, so nothing has to be stored. [EDM2]'s
  kernel has a fixed magnitude and a random direction; ours is free, and 0.

  Attributes:
    features: number of Fourier features.
  """

  features: int = 128

  @nn.compact
  def __call__(self, logsnr: jax.Array) -> jax.Array:
    """logsnr: [B], finite -> [B] float32."""
    normal = statistics.NormalDist(sigma=2 * math.pi)
    order = np.arange(self.features)
    frequencies = [
      normal.inv_cdf((i + 0.5) / self.features) for i in order.tolist()
    ]
    # The golden ratio spreads the phases of neighbouring frequencies.
    phases = 2 * math.pi * (order * (math.sqrt(5) - 1) / 2 % 1)
    x = fourier_features(
      -0.125 * logsnr.astype(jnp.float32),  # ln(s) / 4
      np.asarray(frequencies, np.float32),
      np.asarray(phases, np.float32),
    )
    # One axis, so that no default rule splits it over the devices.
    kernel = self.param('kernel', nn.initializers.zeros, (self.features,))
    return jnp.sum(x * kernel[None], axis=-1) / math.sqrt(self.features)


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
