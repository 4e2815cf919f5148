"""Decodes an image file of any supported kind into 8-bit RGB pixels.

This is the only place of cdm that decodes image files. The kind is found in
the bytes of a file, never in its name. Width times height is limited before any
pixel is decoded, and threads that decode share a memory budget. Of the
metadata, only the orientation is applied, if the caller wants that, and nothing
in them can make sound pixels unreadable.
"""

import contextlib
import functools
import math
import os
import pathlib
import stat
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from PIL import Image

from cdm.data import (
  deep_image,
  deep_samples,
  fast_jpeg,
  image_kinds,
  memory_budget,
  portable_anymap,
  rgb_pixels,
)
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.image_notes import Note
from cdm.data.image_parts import ImageParts, Unreadable, Unusable
from cdm.data.transforms import BadImage, UnusableImage

MAX_PIXELS = 180_000_000
# A file with more bytes than this for each allowed pixel is not read. Pixels
# of 64 bits, stored without compression, take eight.
_MOST_BYTES_PER_PIXEL = 16
# Bytes that Pillow takes for a pixel, by mode; the other modes take four.
_MODE_BYTES = {'1': 1, 'L': 1, 'P': 1, 'I;16': 2, 'I;16B': 2}
_TEXTS = {
  'alpha': 'its transparent pixels were laid over white',
  'more': 'it has further frames or pages; only the first was read',
}
_BUDGET = memory_budget.MemoryBudget()


class Decoded(NamedTuple):
  """A decoded image file.

  Attributes:
    pixels: uint8 [H, W, 3], read-only, H and W at least 2.
    notes: what the pixels do not show of the file; see `image_notes`.
  """

  pixels: np.ndarray
  notes: tuple[Note, ...] = ()


def decode(
  data: bytes,
  *,
  name: str,
  max_pixels: int = MAX_PIXELS,
  max_value: float | None = None,
  exif_rotation: bool = True,
) -> Decoded:
  """Decodes one image file, or the first frame or page of several.

  Transparent images are composed over white. Samples of more than 8 bits are
  scaled to 8 bits. Colour profiles are ignored, as everywhere in this field.

  Args:
    data: bytes of a file of one of `image_kinds.KINDS`.
    name: the image's name in errors and notes: a path, or data set and index.
    max_pixels: images of more pixels are refused.
    max_value: the value of white in images of 16 or more bits whose file
      declares none. None takes 65535 for 16 bits, and refuses integers of 32
      bits and fractions.
    exif_rotation: whether the image is turned and mirrored as its EXIF
      orientation says. Viewers do that to photographs; the loaders of the
      papers (TensorFlow's, [ADM]'s, EDM's) do not.

  Raises:
    BadImage: the file is damaged, or is no image of a supported kind.
    UnusableImage: it is too large, has samples of an unknown range, is of a
      variant that is not supported, or is only one pixel wide or high.
    ValueError: max_pixels or max_value is not above 0.
  """
  check_limits(max_pixels, max_value)
  try:
    if portable_anymap.is_binary(data):
      pixels, texts = _anymap(data, max_pixels, max_value)
    else:
      pixels, texts = _compressed(data, max_pixels, max_value, exif_rotation)
  except Unusable as error:
    raise UnusableImage(name, error.reason) from error
  except Unreadable as error:
    raise BadImage(name, error.reason) from error
  if min(pixels.shape[:2]) < 2:
    raise UnusableImage(name, f'{size_text(pixels)} are not an image')
  _BUDGET.count_until_freed(pixels)
  notes = (Note(kind, name, text) for kind, text in texts.items())
  return Decoded(pixels, tuple(notes))


def read_file(
  path: str | os.PathLike[str],
  *,
  max_pixels: int = MAX_PIXELS,
  max_value: float | None = None,
  exif_rotation: bool = True,
) -> Decoded:
  """Reads and decodes one image file; see `decode`.

  Raises:
    BadImage, UnusableImage: as `decode`.
    UnusableImage: the file cannot be read.
  """
  data = read_bytes(path, max_pixels=max_pixels)
  return decode(
    data,
    name=str(path),
    max_pixels=max_pixels,
    max_value=max_value,
    exif_rotation=exif_rotation,
  )


def read_bytes(
  path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> bytes:
  """Returns the bytes of one image file.

  Raises:
    UnusableImage: the file cannot be read, or has more bytes than an image of
      max_pixels pixels needs.
  """
  path = pathlib.Path(path)
  try:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # Reading a pipe would wait.
      what = 'folder' if stat.S_ISDIR(status.st_mode) else 'pipe or device'
      raise UnusableImage(str(path), f'it is a {what}, not a file')
    check_file_bytes(status.st_size, name=str(path), max_pixels=max_pixels)
    return path.read_bytes()
  except FileNotFoundError:
    raise UnusableImage(str(path), 'there is no such file') from None
  except OSError as error:
    if not_of_the_file(error):
      raise
    reason = (error.strerror or type(error).__name__).lower()
    raise UnusableImage(
      str(path), f'the file cannot be read: {reason}'
    ) from error


def check_file_bytes(count: int, *, name: str, max_pixels: int) -> None:
  """Checks the size of an image file before it is read.

  Args:
    count: bytes of the file.
    name: see `decode`.
    max_pixels: see `decode`.

  Raises:
    UnusableImage: it is too large for an image of that many pixels.
  """
  if count > _MOST_BYTES_PER_PIXEL * max_pixels:
    raise UnusableImage(
      name,
      f'the file has {count:,} bytes, too many for an image of at most '
      f'{max_pixels:,} pixels',
    )


class Limits(TypedDict):
  """Arguments of `decode` and `read_file` that are equal for a whole set.

  Attributes:
    max_pixels, max_value: see `decode`.
    exif_rotation: see `decode`; absent is True.
  """

  max_pixels: int
  max_value: float | None
  exif_rotation: NotRequired[bool]


def check_limits(
  max_pixels: int, max_value: float | None, exif_rotation: bool = True
) -> Limits:
  """Returns them as arguments of `decode` and `read_file`.

  Raises:
    ValueError: one of them is not above 0.
  """
  if max_pixels < 1:
    raise ValueError(f'max_pixels is {max_pixels}; it must be at least 1.')
  if max_value is not None and not 0 < max_value < math.inf:
    raise ValueError(
      f'max_value is {max_value}; it is the value of white in images of more '
      'than 8 bits, e.g. 4095 for 12 bits, or None.'
    )
  limits: Limits = {'max_pixels': max_pixels, 'max_value': max_value}
  return limits if exif_rotation else limits | {'exif_rotation': False}


def read_pixels(path: str | os.PathLike[str]) -> np.ndarray:
  """Returns the pixels of a file that cdm wrote, uint8 [H, W, 3].

  Raises:
    BadImage: the file cannot be read.
  """
  return read_file(path).pixels


def size_text(image: np.ndarray) -> str:
  """Returns '640x480 pixels', width by height, of an image [H, W, ...]."""
  return f'{image.shape[1]}x{image.shape[0]} pixels'


def _compressed(data, max_pixels, max_value, exif_rotation):
  """Returns (pixels, {kind of note: text}) of a file of `image_kinds.KINDS`."""
  kind = image_kinds.kind_of(data)
  parts = kind.split(data)
  if parts.size is not None:
    check_size(*parts.size, max_pixels)
  pixels = _fast_jpeg(parts, exif_rotation)
  if pixels is not None:
    return pixels, _texts(parts, exif_rotation)
  with opened(kind, parts, max_pixels) as (image, parts, open_again):
    is_deep = deep_image.is_deep(image)
    shallow = (
      deep_image.shallow(image, parts, open_again, max_value)
      if is_deep
      else deep_image.Shallow(image)
    )
    orientation = parts.orientation if exif_rotation else 1
    result = rgb_pixels.upright(shallow.image, orientation)
    more = image_kinds.has_more_frames(image)
  return result.pixels, _texts(
    parts._replace(has_more=parts.has_more or more),
    exif_rotation,
    was_transparent=shallow.was_transparent or result.was_transparent,
    dark=shallow.dark,
  )


def _fast_jpeg(parts, exif_rotation):
  """Returns the pixels of a common JPEG file, or None: Pillow decides."""
  if not fast_jpeg.is_usable(parts.sampling):
    return None
  width, height = parts.size
  turned = exif_rotation and parts.orientation != 1
  # A turned image is copied, by way of Pillow's four bytes per pixel.
  per_pixel = fast_jpeg.WORKING_BYTES + parts.working_bytes + 10 * turned
  with _BUDGET.reserve(width * height * per_pixel + 2 * len(parts.data)):
    pixels = fast_jpeg.decode(parts.data, parts.size)
    if pixels is not None and turned:
      image = Image.fromarray(pixels)
      return rgb_pixels.upright(image, parts.orientation).pixels
  if pixels is not None:
    pixels.setflags(write=False)
  return pixels


def _texts(parts, exif_rotation, *, was_transparent=False, dark=None):
  """Returns {kind of note: text} of a decoded file."""
  texts = {
    'profile': f'its colour profile {parts.profile!r} was not applied',
    **_TEXTS,
    'dark': dark_text(dark),
    'rotated': f'its EXIF orientation {parts.orientation} was applied',
    'unrotated': f'its EXIF orientation {parts.orientation} was not applied',
  }
  said = {
    'profile': parts.profile is not None,
    'alpha': was_transparent,
    'more': parts.has_more,
    'dark': dark is not None,
    'rotated': exif_rotation and parts.orientation != 1,
    'unrotated': not exif_rotation and parts.orientation != 1,
  }
  return {key: texts[key] for key in texts if said[key]}


def _anymap(data, max_pixels, max_value):
  """Returns (pixels, {kind of note: text}) of a binary PGM or PPM file."""
  width, height, channels, white, start = portable_anymap.read_header(data)
  check_size(width, height, max_pixels)
  with _BUDGET.reserve(6 * width * height):
    samples = portable_anymap.samples(
      data, (height, width, channels), white, start
    )
    scaled = deep_samples.scale(samples, declared=white, max_value=max_value)
    pixels = scaled.pixels
    if channels == 1:
      pixels = np.repeat(pixels, 3, axis=2)
    pixels.setflags(write=False)
  dark = {'dark': dark_text(scaled.dark)} if scaled.dark is not None else {}
  return pixels, dark


def dark_text(largest: int | None) -> str:
  """Returns the text of the note 'dark', see `deep_samples.Scaled`."""
  return (
    f'its 16-bit values reach only {largest} of 65535; if white has another '
    'value in this image, give max_value (--max_value=V)'
  )


@contextlib.contextmanager
def opened(
  kind: image_kinds.Kind, parts: ImageParts, max_pixels: int
) -> Generator[tuple[Image.Image, ImageParts, Callable[[], Any]]]:
  """Context manager that opens an image to be decoded within it.

  The memory that decoding takes is within the budget of all threads.

  Args:
    kind: the kind of the file.
    parts: what its `split` has returned.
    max_pixels: see `decode`.

  Yields:
    (image of Pillow that is not loaded, parts, function that returns a context
    manager which opens the same file again).

  Raises:
    Unreadable: the file is damaged, or of a variant that is not supported.
    Unusable: it is too large.
  """
  open_again = functools.partial(image_kinds.open_image, kind, parts.data)
  if parts.size is not None:
    check_size(*parts.size, max_pixels)
  with open_again() as image:
    check_size(*image.size, max_pixels)
    if kind.name == 'AVIF':
      parts = image_kinds.parts_of_avif(image, parts)
    with _BUDGET.reserve(_working_bytes(image, parts)):
      yield image, parts, open_again


def reserve(count: int) -> contextlib.AbstractContextManager[None]:
  """Context manager of the memory budget of all threads that decode."""
  return _BUDGET.reserve(count)


def check_size(width: int, height: int, max_pixels: int) -> None:
  """Checks the size of an image before its pixels are decoded.

  Raises:
    Unusable: it has more than max_pixels pixels.
  """
  if width * height > max_pixels:
    raise Unusable(
      f'{width}x{height} pixels are more than the {max_pixels:,} that are '
      'allowed; shrink the image, or raise max_pixels'
    )


def _working_bytes(image, parts):
  """Returns about how many bytes decoding an opened image takes."""
  pixels = image.size[0] * image.size[1]
  per_pixel = _MODE_BYTES.get(image.mode, 4) + parts.working_bytes
  if deep_image.is_deep(image):
    per_pixel += deep_image.WORKING_BYTES
  # Small images are copied as a whole, large ones in bands.
  copies = 3 if pixels > rgb_pixels.WHOLE_PIXELS else 10
  return pixels * (per_pixel + copies) + 2 * len(parts.data)
