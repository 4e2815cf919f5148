"""Turns an opened Pillow image of 8-bit samples into an array, upright."""

from typing import NamedTuple

import numpy as np
from PIL import Image

# Larger images are converted in bands, because Pillow and NumPy hold several
# copies of what is converted at once.
WHOLE_PIXELS = 2**22
# A band of about as many pixels fits into a core's cache. That makes large
# images two to three times faster, and turned ones even if they are small.
_BAND_PIXELS = 2**18

# What the viewer must do with the stored pixels, by EXIF orientation.
_TRANSPOSES = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_INVERSE = {6: 8, 8: 6}  # The others are their own inverse.


class Upright(NamedTuple):
  """An image as the viewer sees it.

  Attributes:
    pixels: uint8 [H, W, 3], read-only.
    was_transparent: whether a pixel was not opaque.
  """

  pixels: np.ndarray
  was_transparent: bool


def upright(image: Image.Image, orientation: int) -> Upright:
  """Returns the pixels of a loaded image of 8-bit samples.

  Transparent pixels are laid over white.

  Args:
    image: of any mode of Pillow but those of deeper samples.
    orientation: 1 to 8, as in EXIF.
  """
  width, height = image.size
  if width * height <= (WHOLE_PIXELS if orientation == 1 else _BAND_PIXELS):
    rgb, was_transparent = _rgb(_transposed(image, orientation))
    return Upright(np.asarray(rgb), was_transparent)
  shape = (height, width) if orientation < 5 else (width, height)
  pixels = np.empty((*shape, 3), np.uint8)
  stored = _undone(pixels, orientation)
  inverse = _INVERSE.get(orientation, orientation)
  was_transparent = False
  rows = max(1, _BAND_PIXELS // width)
  for top in range(0, height, rows):
    bottom = min(top + rows, height)
    band = _transposed(image.crop((0, top, width, bottom)), orientation)
    rgb, transparent = _rgb(band)
    _undone(stored[top:bottom], inverse)[:] = np.asarray(rgb)
    was_transparent |= transparent
  pixels.setflags(write=False)
  return Upright(pixels, was_transparent)


def turned(stored: np.ndarray, orientation: int) -> np.ndarray:
  """Returns samples [H, W, ...] as the viewer sees them, as a view.

  Args:
    stored: samples as the file stores them.
    orientation: 1 to 8, as in EXIF.
  """
  return _undone(stored, _INVERSE.get(orientation, orientation))


def _transposed(image, orientation):
  method = _TRANSPOSES.get(orientation)
  return image if method is None else image.transpose(method)


def _undone(pixels, orientation):
  """Returns a view of upright pixels [H, W, 3] as the file stores them."""
  if orientation in (5, 6, 7, 8):
    pixels = pixels.swapaxes(0, 1)
  rows = slice(None, None, -1 if orientation in (3, 4, 6, 7) else 1)
  columns = slice(None, None, -1 if orientation in (2, 3, 7, 8) else 1)
  return pixels[rows, columns]


def _rgb(image):
  """Returns (an RGB image, whether a pixel was not opaque)."""
  if image.has_transparency_data:
    rgba = image.convert('RGBA')
    was_transparent = rgba.getchannel('A').getextrema()[0] < 255
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, rgba).convert('RGB')
    return image, was_transparent
  # An RGB image is not converted, because the copy would take a third of the
  # time of decoding.
  return (image if image.mode == 'RGB' else image.convert('RGB')), False
