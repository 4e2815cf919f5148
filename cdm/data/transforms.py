"""Crops and resizes images to a square, in NumPy.

The default is what [SR3] and the CDM family do to prepare their images: crop
the largest centre square, then average areas. The area mean is exact, so each
pixel has the same value on every machine.

What the public programs of the field do to a photograph has names too, and
gives their bytes:

  crop     filter             program
  center   area               [SR3]; ours
  center   box_then_bicubic   [ADM]'s loader, and EDM's dataset_tool with
                              --transform=center-crop-dhariwal, after which
                              `center_crop_dhariwal` is another name of it
  center   lanczos            EDM's and StyleGAN's dataset_tool with
                              --transform=center-crop
  squash   box                downsampled ImageNet, image_resizer_imagenet.py
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import sparse

from cdm.data.printable_name import printable

CROPS = ('center', 'random', 'none', 'squash')
BOX_THEN_BICUBIC = 'box_then_bicubic'
FILTERS = ('area', 'bicubic', 'bilinear', 'lanczos', 'box', BOX_THEN_BICUBIC)
SYNONYMS = {'center_crop_dhariwal': BOX_THEN_BICUBIC}
MOST_PIXELS = 2**16  # a side, which no data set of this field comes near
_BAND_BYTES = 2**22

# glibc returns freed memory to the system until an array of this size has been
# freed once. To get the memory back, page by page and zeroed, can take longer
# than decoding. The array is never touched, so it uses no memory.
np.empty(2**25 - 2**14, np.uint8)


class BadImage(ValueError):
  """A record has no usable pixels; the reader skips, counts and reports it.

  Attributes:
    name: a path, or data set and index.
    reason: why the pixels cannot be used.
    is_data_error: whether the file is damaged, see `damaged_file`.
  """

  is_data_error = True

  def __init__(self, name: str, reason: str):
    # Pickling needs both as arguments of the base class.
    super().__init__(name, reason)
    self.name, self.reason = name, reason

  def __str__(self) -> str:
    return f'{printable(self.name)}: {self.reason}'


class UnusableImage(BadImage):
  """An image is not damaged, but cannot be used as it is, or is not there."""

  is_data_error = False


def check_fit(*, size: int, crop: str, filter: str) -> None:
  """Checks the arguments of `fit` before any image is read.

  Raises:
    ValueError: one of them is not known or out of range.
  """
  if size < 1:
    raise ValueError(f'image_size is {size}; it must be at least 1.')
  if size > MOST_PIXELS:
    raise ValueError(f'image_size is {size}; it must be at most {MOST_PIXELS}.')
  if crop not in CROPS:
    raise ValueError(f'crop is {crop!r}; known crops are {CROPS}.')
  if filter_name(filter) not in FILTERS:
    known = (*FILTERS, *SYNONYMS)
    raise ValueError(f'filter is {filter!r}; known filters are {known}.')
  if crop == 'squash' and filter_name(filter) == BOX_THEN_BICUBIC:
    raise ValueError(
      f'filter is {filter!r}, which keeps the shape of an image, and crop is '
      "'squash', which does not. Use crop='center', or filter='box' as "
      'downsampled ImageNet.'
    )


def filter_name(filter: str) -> str:
  """Returns the one name of a filter that may have several."""
  return SYNONYMS.get(filter, filter)


def least_side(image: np.ndarray, short_side: int | np.integer) -> int:
  """Returns the shorter side of an image, or of its original if that is less.

  Args:
    image: [H, W, C].
    short_side: see `source.Element`.
  """
  return min(int(short_side), *image.shape[:2])


def fit(
  image: np.ndarray,
  *,
  size: int,
  crop: str = 'center',
  filter: str = 'area',
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Makes a square of an image, of the size that is asked for.

  Args:
    image: [H, W, 3] uint8.
    size: S, pixels.
    crop: 'center' or 'random' (the largest square, centred or anywhere),
      'squash' (the whole image, whose sides are resized by two factors), or
      'none' (the image must be S x S already).
    filter: 'area', one of Pillow's antialiased filters, or 'box_then_bicubic':
      the whole image is halved by box means while its shorter side is at least
      2 S, then resized by bicubic, and the square is cut last.
    rng: draws the place of a 'random' crop, which needs it; else unused.

  Returns:
    [S, S, 3] uint8.

  Raises:
    ValueError: crop is 'none', and the image is not S x S.
  """
  height, width = image.shape[:2]
  if image.dtype != np.uint8 and (height, width) != (size, size):
    raise ValueError(
      f'arrays are not resized, and one has {width}x{height} pixels instead of '
      f'the {size}x{size} of image_size; cut patches with size={size} in the '
      'section of the data.'
    )
  if crop == 'none':
    if (height, width) != (size, size):
      raise ValueError(
        f"crop='none' expects {size}x{size} pixels, but an image has "
        f"{width}x{height}. Use crop='center' to crop and resize, or set "
        f'image_size to the size of the images.'
      )
    return image
  filter = filter_name(filter)
  if crop == 'squash':
    return _resized(image, (size, size), filter)
  if filter == BOX_THEN_BICUBIC:
    image = _halved_then_bicubic(image, size)
    height, width = image.shape[:2]
  top, left, side = _square(height, width, crop, rng)
  square = image[top : top + side, left : left + side]
  return _resized(square, (size, size), filter)


class Region(NamedTuple):
  """A rectangle of an image, in its pixels, whose first begins at 0.0."""

  top: float
  left: float
  height: float
  width: float


def fit_region(
  shape: tuple[int, ...],
  *,
  size: int,
  crop: str = 'center',
  filter: str = 'area',
  rng: np.random.Generator | None = None,
) -> Region:
  """Returns the rectangle of an image that `fit` makes its square of.

  Args:
    shape: (height, width, ...) of the image.
    size, crop, filter: see `fit`.
    rng: in the state in which `fit` is given it.
  """
  height, width = shape[:2]
  if crop in ('none', 'squash'):
    return Region(0.0, 0.0, height, width)
  rows, columns = height, width
  if filter_name(filter) == BOX_THEN_BICUBIC:
    columns, rows = _halved_sizes(width, height, size)[-1]
  top, left, side = _square(rows, columns, crop, rng)
  y, x = height / rows, width / columns
  return Region(y * top, x * left, y * side, x * side)


def _square(height, width, crop, rng):
  """Returns (top, left, side) of the largest square, as the crop has it."""
  side = min(height, width)
  if crop != 'random':
    return (height - side) // 2, (width - side) // 2, side
  assert rng is not None, 'a random crop needs a generator'
  top = int(rng.integers(height - side + 1))
  return top, int(rng.integers(width - side + 1)), side


def _resized(image, size, filter):
  """Returns an image [H, W, 3] resized to (h, w)."""
  if image.shape[:2] == size:
    return image
  if filter == 'area':
    return area_resize(image, size)
  resample = Image.Resampling[filter.upper()]
  return np.array(Image.fromarray(image).resize(size[::-1], resample))


def _halved_then_bicubic(image, size):
  """Resizes the shorter side of an image to `size`, as [ADM]'s loader does."""
  picture = Image.fromarray(image)
  *halves, last = _halved_sizes(*picture.size, size)
  for half in halves:
    picture = picture.resize(half, Image.Resampling.BOX)
  return np.array(picture.resize(last, Image.Resampling.BICUBIC))


def _halved_sizes(width, height, size):
  """Returns the (width, height) of each resizing of [ADM]'s loader."""
  sizes = []
  while min(width, height) >= 2 * size:
    width, height = width // 2, height // 2
    sizes.append((width, height))
  scale = size / min(width, height)
  return [*sizes, (round(width * scale), round(height * scale))]


def resize_crop(
  image: np.ndarray, *, short_side: int, size: int, filter: str = 'bilinear'
) -> np.ndarray:
  """Resizes and centre-crops as torchvision's preset for ImageNet evaluation.

  The shorter side is resized to `short_side`, then the central square is cut
  out.

  Args:
    image: [H, W, 3] uint8.
    short_side: pixels; 256 for ImageNet.
    size: S, pixels, at most short_side; 224 for ImageNet.
    filter: one of Pillow's antialiased filters.

  Returns:
    [S, S, 3] uint8, exactly the bytes that Pillow computes.
  """
  height, width = image.shape[:2]
  short = min(height, width)
  h, w = (int(short_side * n / short) for n in (height, width))
  if (h, w) != (height, width):
    resample = Image.Resampling[filter.upper()]
    image = np.array(Image.fromarray(image).resize((w, h), resample))
  top, left = round((h - size) / 2), round((w - size) / 2)  # half to even
  return np.ascontiguousarray(image[top : top + size, left : left + size])


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Returns an image with the channels that are asked for.

  Args:
    image: [H, W, C].
    channels: its own number, or 1 to make grey of an RGB image: its luma by
      ITU-R BT.601, as Pillow computes it.

  Raises:
    ValueError: it cannot have them.
  """
  own = image.shape[-1]
  if own == channels:
    return image
  if (own, channels, image.dtype) == (3, 1, np.uint8):
    return np.asarray(Image.fromarray(image).convert('L'))[..., None]
  raise ValueError(
    f'pipeline.channels is {channels}, but an image of the data has {own} '
    f'channels; set --config.pipeline.channels={own}, or give other data.'
  )


def mirror(image: np.ndarray) -> np.ndarray:
  """Returns a copy of an image [H, W, C] with left and right exchanged."""
  mirrored = np.empty_like(image)
  # One channel at a time is five times faster than copying [:, ::-1].
  for c in range(image.shape[2]):
    mirrored[:, :, c] = image[:, ::-1, c]
  return mirrored


def area_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an image: each new pixel is the mean of the area it covers.

  This is tf.image.resize(method='area'). Pillow's BOX filter agrees only if the
  ratio of the sizes is an integer: if not, it counts each pixel at the border
  of an area either wholly or not at all.

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
    # Pillow's reduce is exact for powers of two only. For a factor of 3, for
    # example, it divides in fixed point, and some pixels are one level too low.
    return np.array(Image.fromarray(image).reduce(factors))
  mean = np.empty((rows, columns, channels), np.uint8)
  for first, last in _bands(image.shape, rows):
    mean[first:last] = _band_mean(image, size, first, last)
  return mean


def _band_mean(image, size, first, last):
  """Returns rows first to last - 1 of the mean over each area."""
  height, width, channels = image.shape
  rows, columns = size
  top, bottom = first * height // rows, -(-last * height // rows)
  # All sums are integers that these floats represent exactly, so the order of
  # summation does not matter.
  dtype = np.float32 if 255 * height < 2**24 else np.float64
  x = image[top:bottom].astype(dtype).reshape(bottom - top, -1)
  x = _overlaps(height, rows, first, last, dtype) @ x  # times height
  x = x.reshape(-1, width, channels)
  planes = np.empty((width, channels, len(x)))  # float64
  # One channel at a time is several times faster than transposing pixels.
  for c in range(channels):
    planes[:, c] = x[:, :, c].T
  x = _overlaps(width, columns, 0, columns, np.float64) @ planes.reshape(
    width, -1
  )  # times the area, still an integer
  # Rounds half up. Each sum + area / 2 is a multiple of 1/2, so adding 1/4
  # moves none of them across a multiple of the area, and the error of float64
  # is far smaller than 1/4.
  x *= 1 / (height * width)
  x += 0.5 + 0.25 / (height * width)
  x = x.astype(np.uint8).reshape(columns, channels, -1)
  mean = np.empty((last - first, columns, channels), np.uint8)
  for c in range(channels):
    mean[:, :, c] = x[:, c].T
  return mean


def _halves(old, new):
  """Whether halving `old` some times gives `new` exactly."""
  ratio = old // new
  return old == ratio * new and ratio & (ratio - 1) == 0


def _bands(shape: tuple[int, ...], rows: int) -> Iterator[tuple[int, int]]:
  """Yields (first, last) of bands of new rows that fit into a core's cache."""
  height, width, channels = shape
  # A new row needs its old rows in float32 and, after the sum, two in float64.
  row_bytes = 4 * width * channels * (height / rows + 4)
  step = max(1, int(_BAND_BYTES / row_bytes))
  for first in range(0, rows, step):
    yield first, min(first + step, rows)


@functools.lru_cache(4096)
def _overlaps(old, new, first, last, dtype):
  """Returns how much of each old row the new rows first to last - 1 cover.

  New row i extends from old row i old / new to (i + 1) old / new. In units of
  1 / new of a row these are integers, so nothing is rounded.

  Returns:
    A sparse matrix [last - first, n] of coverages times `new`; its column 0 is
    the old row first old // new.
  """
  start = np.arange(first, last) * old
  end = start + old
  count = -(-end // new) - start // new  # old rows that each new row touches
  after = np.cumsum(count)
  row = np.arange(after[-1]) + np.repeat(start // new - after + count, count)
  covered = np.minimum(np.repeat(end, count), (row + 1) * new)
  covered -= np.maximum(np.repeat(start, count), row * new)
  row -= start[0] // new
  shape = (last - first, row[-1] + 1)
  parts = (covered.astype(dtype), row, np.append(0, after))
  return sparse.csr_array(parts, shape=shape)
