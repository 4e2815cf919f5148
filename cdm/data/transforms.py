"""Encoded bytes -> RGB pixels -> one square of the asked size.

NumPy in, NumPy out: decode, crop the largest centre square, area-average it to
size, as [SR3] and the CDM family prepare their images. The area mean is exact,
so a pixel is the same on every machine.
"""

import functools
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import sparse

CROPS = ('center', 'random', 'none')
FILTERS = ('area', 'bicubic', 'bilinear', 'lanczos')
_BAND_BYTES = 2**22

# glibc gives freed memory back to the system until it has once seen an array of
# this size freed; to be given it anew, page by page and zeroed, can take longer
# than decoding. Nothing is touched here, so nothing is used.
np.empty(2**25 - 2**14, np.uint8)


class BadImage(ValueError):
  """A record without usable pixels: skipped and counted, never silently."""

  def __init__(self, name, reason):
    super().__init__(name, reason)  # both, so that it survives pickling
    self.name, self.reason = name, reason

  def __str__(self):
    return f'{self.name}: {self.reason}'


def decode(data, *, name):
  """Decodes one image file; of an animation, the first frame.

  The EXIF orientation is applied (differs: TensorFlow's decoders, and with them
  most ImageNet pipelines, ignore it). Transparency is laid over white. 16-bit
  grey is scaled to 8 bits. Colour profiles are ignored, as everywhere in this
  field.

  Args:
    data: bytes of a JPEG, PNG, WebP, GIF, TIFF, ... file.
    name: what to call it in an error: a path, or data set and index.

  Returns:
    [H, W, 3] uint8, read-only, H and W at least 2.

  Raises:
    BadImage: truncated, not an image, of unknown range, or one pixel wide.
  """
  try:
    with Image.open(io.BytesIO(data)) as image:
      ImageOps.exif_transpose(image, in_place=True)
      pixels = _rgb(image)
  except MemoryError:
    raise
  except UnidentifiedImageError:  # whose own words are an address in memory
    raise BadImage(name, 'cannot identify the kind of image') from None
  except Exception as error:  # Pillow raises nearly anything on damaged bytes.
    raise BadImage(name, f'{type(error).__name__}: {error}') from error
  if min(pixels.shape[:2]) < 2:
    height, width = pixels.shape[:2]
    raise BadImage(name, f'{width}x{height} pixels are no picture')
  return pixels


def _rgb(image):
  """A Pillow image of any mode -> [H, W, 3] uint8, read-only."""
  if image.mode == 'F' or image.mode.startswith('I'):
    image = _grey_8_bit(image)
  if image.has_transparency_data:
    image = image.convert('RGBA')
    page = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(page, image)
  # Not copied where it need not be: that takes as long as a third of decoding.
  return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def _grey_8_bit(image):
  # Pillow's own conversion clips at 255 and would turn 16-bit images white.
  values = np.asarray(image)
  if values.dtype.kind == 'f' or values.min() < 0 or values.max() > 65535:
    raise ValueError(f'the range of {image.mode!r} pixels is unknown')
  scaled = (values.astype(np.int64) * 255 + 32767) // 65535  # rounded
  return Image.fromarray(scaled.astype(np.uint8))


def check_fit(*, size, crop, filter):
  """Refuses what `fit` cannot do, before any image is read."""
  if size < 1:
    raise ValueError(f'image_size is {size}; it must be at least 1.')
  if crop not in CROPS:
    raise ValueError(f'crop is {crop!r}; known crops are {CROPS}.')
  if filter not in FILTERS:
    raise ValueError(f'filter is {filter!r}; known filters are {FILTERS}.')


def fit(image, *, size, crop='center', filter='area', rng=None):
  """Crops a square and resizes it.

  Args:
    image: [H, W, 3] uint8.
    size: S, pixels.
    crop: 'center' or 'random' (the largest square, centred or anywhere), or
      'none' (the image must be S x S already).
    filter: 'area', or one of Pillow's antialiased filters.
    rng: np.random.Generator; only 'random' draws from it.

  Returns:
    [S, S, 3] uint8.
  """
  height, width = image.shape[:2]
  if crop == 'none':
    if (height, width) != (size, size):
      raise ValueError(
        f"crop='none' expects {size}x{size} pixels, but an image has "
        f"{width}x{height}. Use crop='center' to crop and resize, or set "
        f'image_size to the size of the images.'
      )
    return image
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  if crop == 'random':
    top = rng.integers(height - side + 1)
    left = rng.integers(width - side + 1)
  square = image[top : top + side, left : left + side]
  if side == size:
    return square
  if filter == 'area':
    return area_resize(square, (size, size))
  resample = Image.Resampling[filter.upper()]
  return np.array(Image.fromarray(square).resize((size, size), resample))


def middle(image, *, short_side, size, filter='bilinear'):
  """What networks of ImageNet are tested on: torchvision's preset.

  The shorter side is resized to `short_side`, then the middle is cut out.

  Args:
    image: [H, W, 3] uint8.
    short_side: pixels; 256 of ImageNet.
    size: S, pixels, at most that; 224 of ImageNet.
    filter: one of Pillow's antialiased filters.

  Returns:
    [S, S, 3] uint8, the bytes that Pillow gives.
  """
  height, width = image.shape[:2]
  short = min(height, width)
  h, w = (int(short_side * n / short) for n in (height, width))
  if (h, w) != (height, width):
    resample = Image.Resampling[filter.upper()]
    image = np.array(Image.fromarray(image).resize((w, h), resample))
  top, left = round((h - size) / 2), round((w - size) / 2)  # half to even
  return np.ascontiguousarray(image[top : top + size, left : left + size])


def mirror(image):
  """Exchanges left and right. [H, W, C] -> [H, W, C], a copy."""
  mirrored = np.empty_like(image)
  for c in range(image.shape[2]):  # five times faster than copying [:, ::-1]
    mirrored[:, :, c] = image[:, ::-1, c]
  return mirrored


def area_resize(image, size):
  """Averages the area that each new pixel covers, fractions included.

  This is tf.image.resize(method='area'). Pillow's BOX agrees only where the
  ratio is an integer: elsewhere it counts border pixels wholly or not at all.

  Args:
    image: [H, W, C] uint8.
    size: (h, w), smaller or larger.

  Returns:
    [h, w, C] uint8, the exact mean rounded half up.
  """
  height, width, channels = image.shape
  rows, columns = size
  if _halves(height, rows) and _halves(width, columns):
    factors = (width // columns, height // rows)
    # Exact for powers of two only: at 3 it divides in fixed point, and is one
    # level too low in places.
    return np.array(Image.fromarray(image).reduce(factors))
  mean = np.empty((rows, columns, channels), np.uint8)
  for first, last in _bands(image.shape, rows):
    mean[first:last] = _band_mean(image, size, first, last)
  return mean


def _band_mean(image, size, first, last):
  """Rows first to last, not included, of the mean over each area."""
  height, width, channels = image.shape
  rows, columns = size
  top, bottom = first * height // rows, -(-last * height // rows)
  # Sums of integers: floats of enough bits hold them exactly, in any order.
  dtype = np.float32 if 255 * height < 2**24 else np.float64
  x = image[top:bottom].astype(dtype).reshape(bottom - top, -1)
  x = _overlaps(height, rows, first, last, dtype) @ x  # times height
  x = x.reshape(-1, width, channels)
  planes = np.empty((width, channels, len(x)))  # float64
  for c in range(channels):  # several times faster than transposing pixels
    planes[:, c] = x[:, :, c].T
  x = _overlaps(width, columns, 0, columns, np.float64) @ planes.reshape(
    width, -1
  )  # times area, an integer still
  # Half up. Now a sum + area / 2 is a multiple of 1/2, so a quarter more takes
  # none across a multiple of the area, and float64 errs by far less than it.
  x *= 1 / (height * width)
  x += 0.5 + 0.25 / (height * width)
  x = x.astype(np.uint8).reshape(columns, channels, -1)
  mean = np.empty((last - first, columns, channels), np.uint8)
  for c in range(channels):
    mean[:, :, c] = x[:, c].T
  return mean


def _halves(old, new):
  ratio = old // new
  return old == ratio * new and ratio & (ratio - 1) == 0


def _bands(shape, rows):
  """Yields (first, last): stretches of new rows that a core's cache holds."""
  height, width, channels = shape
  # One new row, in float32: the old ones, and two of float64 after the sum.
  row_bytes = 4 * width * channels * (height / rows + 4)
  step = max(1, int(_BAND_BYTES / row_bytes))
  for first in range(0, rows, step):
    yield first, min(first + step, rows)


@functools.lru_cache(4096)
def _overlaps(old, new, first, last, dtype):
  """How much of each old row the new rows first to last cover, times new.

  New row i reaches from row i old / new to (i + 1) old / new; in units of
  1 / new row these are integers, so nothing is rounded.

  Returns:
    Sparse [last - first, n]; its column 0 is the old row first old // new.
  """
  start = np.arange(first, last) * old
  end = start + old
  count = -(-end // new) - start // new  # old rows touched
  after = np.cumsum(count)
  row = np.arange(after[-1]) + np.repeat(start // new - after + count, count)
  covered = np.minimum(np.repeat(end, count), (row + 1) * new)
  covered -= np.maximum(np.repeat(start, count), row * new)
  row -= start[0] // new
  shape = (last - first, row[-1] + 1)
  parts = (covered.astype(dtype), row, np.append(0, after))
  return sparse.csr_array(parts, shape=shape)
