"""Converts images between uint8 and [-1, 1], and lays images out as a grid."""

import jax
import jax.numpy as jnp
import numpy as np


def to_float(image: np.ndarray | jax.Array) -> jax.Array:
  """Maps uint8 [..., C] to float32; 0 becomes -1 and 255 becomes 1."""
  # level / 127.5 - 1 rounds twice, and a compiler may fuse the two operations.
  # This formula rounds once, so an image has the same bits inside and outside
  # jit.
  return (2.0 * jnp.asarray(image, jnp.float32) - 255.0) * np.float32(1 / 255)


def of_batch(image: np.ndarray | jax.Array) -> jax.Array:
  """Returns the images of a training batch, float32 [B, H, W, C] in [-1, 1].

  Args:
    image: uint8, see `to_float`; or float32 of an array, in [-1, 1] already.
  """
  if jnp.issubdtype(image.dtype, jnp.floating):
    return jnp.asarray(image, jnp.float32)
  return to_float(image)


def to_uint8(x: np.ndarray | jax.Array) -> jax.Array:
  """Maps [..., C] in [-1, 1] to uint8: clips, then rounds to the nearest.

  It is the inverse of `to_float` on its 256 values; 0.0 becomes 128.
  """
  levels = (jnp.asarray(x, jnp.float32) + 1.0) * 127.5
  return jnp.floor(jnp.clip(levels, 0.0, 255.0) + 0.5).astype(jnp.uint8)


def shown(images: np.ndarray) -> np.ndarray:
  """Returns images of any channels as colours that can be shown.

  Args:
    images: uint8 [..., H, W, C].

  Returns:
    [..., H, W, 3] of one channel or three; of others [..., H, W C, 3], the
    channels in grey, side by side.
  """
  channels = images.shape[-1]
  if channels == 3:
    return images
  grey = np.concatenate([images[..., c] for c in range(channels)], axis=-1)
  return np.repeat(grey[..., None], 3, axis=-1)


def grid(
  images: np.ndarray | jax.Array, columns: int, *, gap: int = 2
) -> np.ndarray:
  """Lays images out row by row on a white sheet.

  Args:
    images: uint8 [N, H, W, 3].
    columns: images per row; the last row may stay unfilled.
    gap: white pixels between the images and around them.

  Returns:
    NumPy uint8 [rows (H + gap) + gap, columns (W + gap) + gap, 3].

  Raises:
    ValueError: there are no images, or they have another shape or dtype.
  """
  images = np.asarray(images)
  if images.ndim != 4 or images.dtype != np.uint8 or not images.shape[0]:
    raise ValueError(
      'A grid is made of uint8 images [N, H, W, C] with N > 0; given were '
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
