"""Decodes common JPEG files faster than Pillow, to the same bytes.

The package simplejpeg, which the extra `jpeg` installs, hands the pixels of
libjpeg-turbo over as three bytes each. Pillow, which uses the same library,
stores four and packs them afterwards. An image does not depend on whether
simplejpeg is installed:

* simplejpeg is given only what its library decodes as Pillow's does: Huffman
  codes, 8 bits, grey or three channels, a subsampling of `_SUBSAMPLING`. It is
  asked for the slower and exact of its methods, which is its default.
* The two packages bring their own copies of the library. Before the first file
  of a subsampling is decoded, each copy decodes the same samples, and if one
  byte differs, all such files are left to Pillow.
* Whatever simplejpeg warns about or refuses is left to Pillow, which decides
  whether the file can be read, and whose errors are reported.
"""

import contextlib
import functools
import io
import warnings
from typing import Any

import numpy as np
from PIL import Image

simplejpeg: Any = None
with contextlib.suppress(ImportError):
  import simplejpeg

# Bytes of a pixel, and what the library needs for a few rows.
WORKING_BYTES = 4
# Pillow's name of a subsampling, by the sampling factors of the channels: four
# bits for the horizontal one, four for the vertical one, as the file has them.
_SUBSAMPLING = {
  b'\x11': None,  # grey
  b'\x11\x11\x11': '4:4:4',
  b'\x21\x11\x11': '4:2:2',
  b'\x22\x11\x11': '4:2:0',
}
_SAMPLE_QUALITIES = (30, 75, 95)


def is_usable(sampling: bytes | None) -> bool:
  """Whether `decode` may be asked for JPEG files of these sampling factors.

  Args:
    sampling: see `image_parts.ImageParts`.
  """
  return (
    simplejpeg is not None
    and sampling in _SUBSAMPLING
    and _equals_pillow(sampling)
  )


def decode(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
  """Returns the pixels of a JPEG file, uint8 [H, W, 3], as stored.

  Args:
    data: bytes of a file of which `is_usable` is true.
    size: (width, height) of its frame header. Memory is taken for that many
      pixels, whatever else the file claims.

  Returns:
    The pixels, or None: the file is for Pillow to read or refuse.
  """
  width, height = size
  pixels = np.empty((height, width, 3), np.uint8)
  try:
    found = simplejpeg.decode_jpeg(data, buffer=pixels)
  except ValueError:  # an error or a warning of libjpeg-turbo
    return None
  return pixels if found.shape == pixels.shape else None


@functools.cache
def _equals_pillow(sampling):
  """Whether both copies of libjpeg-turbo decode the samples to equal bytes."""
  for sample in _samples(_SUBSAMPLING[sampling]):
    with Image.open(io.BytesIO(sample), formats=['JPEG']) as image:
      expected = np.asarray(image.convert('RGB'))
      found = decode(sample, image.size)
    if found is None or not np.array_equal(found, expected):
      warnings.warn(
        f'simplejpeg {simplejpeg.__version__} does not decode as the installed '
        'Pillow does. JPEG files are left to Pillow, which is slower; the '
        'pixels are the same. Another version of simplejpeg may help.',
        stacklevel=2,
      )
      return False
  return True


def _samples(subsampling):
  """Yields small JPEG files of hard edges, smooth areas and odd sizes."""
  y, x = np.mgrid[:45, :67]
  smooth = np.stack([3 * x, 5 * y, 2 * (x + y)], axis=-1)
  noise = np.random.default_rng(0).integers(256, size=smooth.shape)
  pixels = np.where((x // 9 + y // 7)[..., None] % 2, smooth, noise)
  image = Image.fromarray(pixels.astype(np.uint8))
  options = {} if subsampling is None else {'subsampling': subsampling}
  if subsampling is None:
    image = image.convert('L')
  for quality in _SAMPLE_QUALITIES:
    for progressive in (False, True):
      file = io.BytesIO()
      image.save(
        file, 'JPEG', quality=quality, progressive=progressive, **options
      )
      yield file.getvalue()
