"""Reads 16-bit TIFF files of layouts that Pillow does not know, by tifffile.

These are grey with alpha, and colours in separate planes.
"""

import io
import struct

import numpy as np
import tifffile

from cdm.data import tiff_tags
from cdm.data.image_parts import ImageParts, Unreadable, Unusable
from cdm.data.photographs import tiff_directory

_BITS, _CHANNELS, _PLANES, _FORMAT, _EXTRA = 258, 277, 284, 339, 338
# Memory per pixel: the decoded planes, and their copy as pixels.
WORKING_BYTES = 24


def is_needed(data: bytes) -> bool:
  """Whether Pillow does not know the layout of a TIFF file's samples."""
  try:
    layout, start = tiff_tags.layout_of(data)
    first = tiff_directory.read(data, layout, start)
  except struct.error:
    return False  # The error will be reported when it is decoded.
  bits, channels, planes, form = (
    tiff_directory.number(first, tag, layout.order)
    for tag in (_BITS, _CHANNELS, _PLANES, _FORMAT)
  )
  if bits != 16 or form not in (None, 1):
    return False
  return channels == 2 or (planes == 2 and channels in (3, 4))


def read(parts: ImageParts) -> tuple[np.ndarray, bool]:
  """Returns (samples, whether colours are multiplied by alpha).

  Args:
    parts: of a file for which `is_needed` is true, of a size that was checked.

  Returns:
    uint16 [H, W, C]; with two or four channels, the last is alpha.

  Raises:
    Unreadable: the file is damaged.
    Unusable: its compression needs a package that is not installed.
  """
  try:
    with tifffile.TiffFile(io.BytesIO(parts.data)) as file:
      page = file.pages.first
      samples = page.asarray()
      extra = page.tags.get(_EXTRA)
      associated = extra is not None and 1 in np.ravel(extra.value)
  except Exception as error:  # Damaged bytes raise nearly anything.
    if 'imagecodecs' in str(error):
      raise Unusable(
        'the TIFF file stores 16-bit samples in a compression that is not '
        'supported; save it as a 16-bit PNG'
      ) from error
    raise Unreadable('the TIFF file is damaged or cut off') from error
  assert parts.size is not None  # A TIFF file states it.
  if samples.ndim == 3 and samples.shape[1:] == parts.size[::-1]:
    samples = np.moveaxis(samples, 0, 2)  # from planes
  if samples.ndim != 3 or samples.shape[1::-1] != parts.size:
    raise Unreadable('the TIFF file is damaged or cut off')
  return samples.astype(np.uint16), associated
