"""Scales the input and the output of a network as EDM does, [EDM] tab. 1.

  D(x; s) = c_skip x + c_out F(c_in x),  x = x_t / alpha,  s = sigma / alpha
  r^2 = sigma^2 + (alpha sigma_data)^2,  the variance of x_t
  c_in x = x_t / r
  x_0 = (alpha sigma_data^2 / r^2) x_t + (sigma sigma_data / r) F
  eps = (sigma / r^2) x_t - (alpha sigma_data / r) F
  F   = (sigma x_0 / sigma_data - alpha sigma_data eps) / r

Here s is EDM's noise level and x its image, which is not scaled down as noise
is added. F is what the network predicts. All are written without a division by
alpha or sigma, so that both ends of a schedule keep their digits. For data of
standard deviation sigma_data, the network's input and F both have unit variance
at every level. With sigma_data = 1, F is -v of [PD].
"""

import dataclasses

import jax
import jax.numpy as jnp

from cdm.diffusion.process import alpha_sigma, expand_like


@dataclasses.dataclass(frozen=True)
class Edm:
  """The kind of prediction of a preconditioned network.

  Attributes:
    sigma_data: standard deviation of the data, which [EDM] takes as 0.5 for
      images in [-1, 1].

  Raises:
    ValueError: sigma_data is not positive.
  """

  sigma_data: float = 0.5

  def __post_init__(self):
    if not self.sigma_data > 0:
      raise ValueError(
        f'sigma_data is {self.sigma_data}; it is the standard deviation of the '
        'data and must be above 0, e.g. 0.5.'
      )


def scaled_input(edm: Edm, x_t: jax.Array, *, logsnr: jax.Array) -> jax.Array:
  """Returns what the network is given, c_in x of [EDM] tab. 1.

  Args:
    edm: the preconditioning.
    x_t: [B, H, W, C].
    logsnr: [B].
  """
  _, _, r = _scales(edm, x_t, logsnr)
  return x_t / r


def x_0_and_eps(
  edm: Edm, output: jax.Array, x_t: jax.Array, *, logsnr: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Reads a network's output F.

  Args:
    edm: the preconditioning.
    output: [B, H, W, C], F.
    x_t: [B, H, W, C], before it is scaled for the network.
    logsnr: [B].

  Returns:
    (x_0, eps), each [B, H, W, C]; x_0 is D of [EDM] eq. 7.
  """
  alpha, sigma, r = _scales(edm, x_t, logsnr)
  data = edm.sigma_data
  x_0 = alpha * (data / r) ** 2 * x_t + sigma * data / r * output
  eps = sigma / r**2 * x_t - alpha * data / r * output
  return x_0, eps


def target(
  edm: Edm, x_0: jax.Array, eps: jax.Array, *, logsnr: jax.Array
) -> jax.Array:
  """Returns F of a pair (x_0, eps), the effective target of [EDM] eq. 8.

  Args:
    edm: the preconditioning.
    x_0, eps: [B, H, W, C].
    logsnr: [B].
  """
  alpha, sigma, r = _scales(edm, x_0, logsnr)
  return (sigma / edm.sigma_data * x_0 - alpha * edm.sigma_data * eps) / r


def _scales(edm, x, logsnr):
  """Returns alpha, sigma and r, each [B, 1, 1, 1]."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x))
  return alpha, sigma, jnp.sqrt(sigma**2 + (alpha * edm.sigma_data) ** 2)
