"""Encoded bytes -> RGB pixels -> one square of the asked size.

NumPy in, NumPy out: decode, crop the largest centre square, area-average it to
size, as [SR3] and the CDM family prepare their images. The area mean is
computed in integers, so a pixel is the same on every machine.
"""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CROPS = ('center', 'random', 'none')
FILTERS = ('area', 'bicubic', 'bilinear', 'lanczos')


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
    [H, W, 3] uint8, H and W at least 2.

  Raises:
    BadImage: truncated, not an image, of unknown range, or one pixel wide.
  """
  try:
    with Image.open(io.BytesIO(data)) as image:
      pixels = _rgb(ImageOps.exif_transpose(image))
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
  """A Pillow image of any mode -> [H, W, 3] uint8."""
  if image.mode == 'F' or image.mode.startswith('I'):
    image = _grey_8_bit(image)
  if image.has_transparency_data:
    image = image.convert('RGBA')
    page = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(page, image)
  return np.array(image.convert('RGB'))


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
  height, width = image.shape[:2]
  rows, columns = size
  if _halves(height, rows) and _halves(width, columns):
    factors = (width // columns, height // rows)
    # Eight times faster, and exact for powers of two only: at 3 it divides in
    # fixed point, and is one level too low in places.
    return np.array(Image.fromarray(image).reduce(factors))
  area = height * width
  dtype = np.int32 if 511 * area < 2**31 else np.int64
  total = _sum_rows(image.astype(dtype), rows)  # [h, W, C]
  total = np.ascontiguousarray(total.swapaxes(0, 1))  # [W, h, C]
  total = _sum_rows(total, columns).swapaxes(0, 1)  # [h, w, C], times area
  return ((2 * total + area) // (2 * area)).astype(np.uint8)


def _halves(old, new):
  ratio = old // new
  return old == ratio * new and ratio & (ratio - 1) == 0


def _sum_rows(x, count):
  """[H, ...] -> [count, ...], count times the sum over each covered stretch.

  Stretch i reaches from row i H / count to (i + 1) H / count; in units of
  1 / count row these are integers, so nothing is rounded.
  """
  height = x.shape[0]
  edges = np.arange(count + 1) * height
  start, end = edges[:-1], edges[1:]
  first = start // count
  total = np.zeros((count, *x.shape[1:]), x.dtype)
  for k in range(-(-height // count) + 1):  # the most that a stretch can touch
    row = first + k
    covered = np.minimum(end, (row + 1) * count) - np.maximum(
      start, row * count
    )
    weight = np.maximum(covered, 0).astype(x.dtype)
    rows = x[np.minimum(row, height - 1)]
    rows *= weight.reshape((-1,) + (1,) * (x.ndim - 1))
    total += rows
  return total
