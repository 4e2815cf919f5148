"""Divides colours by alpha, fills transparent ones, or lays them over white."""

import numpy as np
from scipy import ndimage


def divided(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Returns straight colours of those that were multiplied by their alpha.

  Args:
    colours: uint16 [H, W, C].
    alpha: uint16 [H, W], 65535 where opaque.
  """
  straight = np.empty_like(colours)
  for row in range(len(colours)):  # so that little memory is needed
    below = np.maximum(alpha[row].astype(np.float64), 1)[:, None]
    scaled = colours[row] * (65535 / below)
    straight[row] = np.minimum(np.floor(scaled + 0.5), 65535)
  return straight


def fill_transparent(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Gives fully transparent pixels the colour of the nearest other pixel.

  Nobody sees the colour of a transparent pixel, and files hold anything there.
  When the picture is enlarged, these colours would mix into the visible edge, a
  fringe. It takes about 12 bytes of memory for each pixel.

  Args:
    samples: uint8 or uint16 [H, W, C], straight colours.
    alpha: [H, W], 0 where transparent.

  Returns:
    The samples themselves if nothing is to be filled, else a copy.
  """
  hidden = alpha == 0
  if not hidden.any() or hidden.all():
    return samples
  nearest = ndimage.distance_transform_edt(
    hidden, return_distances=False, return_indices=True
  )
  filled = samples.copy()
  filled[hidden] = samples[nearest[0][hidden], nearest[1][hidden]]
  return filled


def over_white(samples: np.ndarray) -> np.ndarray:
  """Lays straight colours over white.

  Args:
    samples: uint8 or uint16 [H, W, C], of which the last channel is alpha.

  Returns:
    [H, W, C - 1] of the same type.
  """
  white = np.iinfo(samples.dtype).max
  alpha = samples[..., -1:].astype(np.float32) / white
  mixed = samples[..., :-1] * alpha + white * (1 - alpha)
  return np.floor(np.minimum(mixed, white) + 0.5).astype(samples.dtype)
