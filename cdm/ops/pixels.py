"""Images between uint8 and [-1, 1], and many images laid out as one grid."""

import jax.numpy as jnp
import numpy as np


def to_float(image):
  """uint8 [..., C] -> float32 in [-1, 1]; 0 is -1 and 255 is 1."""
  # level / 127.5 - 1 rounds twice, and compilers fuse it as they please; this
  # rounds once, so an image has the same bits inside a jitted step and out.
  return (2.0 * jnp.asarray(image, jnp.float32) - 255.0) * np.float32(1 / 255)


def to_uint8(x):
  """[..., C] around [-1, 1] -> uint8, clipped, then rounded to the nearest.

  The inverse of `to_float` on its 256 values; 0.0 becomes 128.
  """
  levels = (jnp.asarray(x, jnp.float32) + 1.0) * 127.5
  return jnp.floor(jnp.clip(levels, 0.0, 255.0) + 0.5).astype(jnp.uint8)


def grid(images, columns, *, gap=2):
  """Lays out pictures row by row on white.

  Args:
    images: uint8 [N, H, W, 3].
    columns: pictures per row; the last row may stay unfilled.
    gap: white pixels between pictures and around them.

  Returns:
    NumPy uint8 [rows (H + gap) + gap, columns (W + gap) + gap, 3].

  Raises:
    ValueError: no pictures, another shape or dtype.
  """
  images = np.asarray(images)
  if images.ndim != 4 or images.dtype != np.uint8 or not images.shape[0]:
    raise ValueError(
      'grid takes uint8 [N, H, W, C] with N > 0 and was given '
      f'{images.dtype} {images.shape}.'
    )
  n, h, w, channels = images.shape
  rows = -(-n // columns)
  cells = np.full(
    (rows * columns, h + gap, w + gap, channels), 255, dtype=np.uint8
  )
  cells[:n, :h, :w] = images
  cells = cells.reshape(rows, columns, h + gap, w + gap, channels)
  sheet = cells.transpose(0, 2, 1, 3, 4).reshape(
    rows * (h + gap), columns * (w + gap), channels
  )
  return np.pad(sheet, ((gap, 0), (gap, 0), (0, 0)), constant_values=255)
