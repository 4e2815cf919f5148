"""Keeps a predicted image consistent with its low-res image.

  x_0 -> x_0 + C (z - D x_0),  C = U (D U)^-1,  so that D x_0 = z      [DDNM]

D shrinks an image, U enlarges one, and z is the low-res image. differs: the
paper corrects with the pseudo-inverse of D, which for a mean over blocks is a
step at every block. The correction here is as smooth as U.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion.guidance import with_x_0
from cdm.diffusion.parameterization import Denoiser
from cdm.ops import resize


def project(
  denoise: Denoiser,
  lowres: jax.Array,
  *,
  downsample: str,
  upsample: str,
  where: jax.Array,
  center: float | jax.Array = 0.0,
  scale: float = 1.0,
) -> Denoiser:
  """Returns a denoiser whose image shrinks to the low-res image.

  Args:
    denoise: the denoiser to wrap. Its x_0 is (image - center) / scale.
    lowres: [B, h, w, C], z.
    downsample, upsample: the methods of `ops.resize.resize` that are D and U.
    where: bool [B]; the other images stay as they are.
    center, scale: of a residual target; by default x_0 is the image itself.

  Returns:
    The wrapped denoiser.
  """
  h, w = lowres.shape[1:3]

  def projected(x_t, logsnr):
    prediction = denoise(x_t, logsnr)
    size = x_t.shape[1:3]
    image = center + scale * prediction.x_0
    missing = lowres - resize.resize(image, (h, w), method=downsample)
    rows, columns = (
      correction(small, large, downsample=downsample, upsample=upsample)
      for small, large in zip((h, w), size, strict=True)
    )
    change = jnp.einsum(
      'Hh,bhwc,Ww->bHWc', rows, missing, columns, precision='highest'
    )
    change = jnp.where(where[:, None, None, None], change, 0) / scale
    return with_x_0(prediction, prediction.x_0 + change, x_t, logsnr)

  return projected


def correction(
  small: int, large: int, *, downsample: str, upsample: str
) -> np.ndarray:
  """Returns C of one axis, float32 [large, small]: D C is the identity.

  The condition of D U is 9 at most, whatever the two methods and sizes are.

  Args:
    small, large: pixels of the low-res image and of the image.
    downsample, upsample: see `project`.
  """
  down = resize.resize_weights(large, small, method=downsample)
  up = resize.resize_weights(small, large, method=upsample)
  return np.asarray(up @ np.linalg.inv(down @ up), np.float32)
