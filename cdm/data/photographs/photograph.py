"""Reads a photograph with everything that is in its file.

Unlike `image_decoder.decode`, which makes 8-bit RGB of every file for training
and for scores, this keeps the file's own colours, grey as grey, 16 bits,
transparency and metadata, so that an enlarged picture can be written with them.
The decoding beneath is the same.
"""

import os
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cdm.data import (
  deep_image,
  deep_samples,
  image_decoder,
  image_kinds,
  image_notes,
  portable_anymap,
  rgb_pixels,
)
from cdm.data.image_parts import Unreadable, Unusable
from cdm.data.photographs import (
  extra_kinds,
  jpeg_quality,
  metadata_blocks,
  srgb_conversion,
  tiff_samples,
  transparency,
)
from cdm.data.photographs.carried_metadata import Carried
from cdm.data.transforms import BadImage, UnusableImage

_TRANSFERS = {16: 'PQ', 18: 'HLG'}  # ITU-T H.273
_MORE = 'it has further frames or pages; only the first was read'
_GREY_MODES = ('1', 'L', 'LA', 'La')


class Photograph(NamedTuple):
  """A photograph as a viewer shows it.

  Attributes:
    samples: uint8 or uint16 [H, W, C], upright, read-only; C is 1 for grey, 3
      for colours. The largest value of the type is white. Of an array, see
      `array_pictures`, it may be float32 in [-1, 1].
    alpha: of the same type [H, W], the largest value where opaque; None if the
      file has none. Colours are straight, not multiplied by it.
    kind: the kind of the file, e.g. 'JPEG'; see `image_kinds.KINDS` and
      `extra_kinds.EXTRAS`.
    carried: the metadata, to be written back by `metadata_output.for_output`.
    quality: of a JPEG file, 1 to 100, as far as its tables tell; else None.
    notes: what is not as in the file; see `image_notes`.
  """

  samples: np.ndarray
  alpha: np.ndarray | None
  kind: str
  carried: Carried = Carried()
  quality: int | None = None
  notes: tuple[image_notes.Note, ...] = ()

  @property
  def white(self) -> int:
    """The value of white, 255 or 65535."""
    return int(np.iinfo(self.samples.dtype).max)

  @property
  def bits(self) -> int:
    """Bits of a sample, 8 or 16."""
    return 8 * self.samples.dtype.itemsize


class _Raw(NamedTuple):
  """Samples as the file stores them, not yet upright."""

  samples: np.ndarray  # [H, W] or [H, W, C]
  has_alpha: bool = False
  orientation: int = 1
  notes: dict[str, str] = {}
  info: dict[str, Any] = {}
  is_srgb: bool = False  # so that the profile of the file no longer holds


def read(
  path: str | os.PathLike[str],
  *,
  max_pixels: int = image_decoder.MAX_PIXELS,
  max_value: float | None = None,
) -> Photograph:
  """Reads a photograph; see `decode`.

  Raises:
    BadImage, UnusableImage: as `decode`.
    UnusableImage: the file cannot be read.
  """
  data = image_decoder.read_bytes(path, max_pixels=max_pixels)
  return decode(
    data, name=str(path), max_pixels=max_pixels, max_value=max_value
  )


def decode(
  data: bytes,
  *,
  name: str,
  max_pixels: int = image_decoder.MAX_PIXELS,
  max_value: float | None = None,
) -> Photograph:
  """Decodes a photograph.

  Args:
    data: bytes of a file of a kind of `image_kinds` or `extra_kinds`.
    name: the photograph's name in errors and notes.
    max_pixels: photographs of more pixels are refused.
    max_value: see `image_decoder.decode`.

  Raises:
    BadImage: the file is damaged, or is no image of a supported kind.
    UnusableImage: it is too large, has samples of an unknown range or colours
      of high dynamic range, needs a package that is not installed, or is of a
      variant that is not supported.
    ValueError: max_pixels or max_value is not above 0.
  """
  image_decoder.check_limits(max_pixels, max_value)
  try:
    return _photograph(data, name, max_pixels, max_value)
  except Unusable as error:
    raise UnusableImage(name, error.reason) from error
  except Unreadable as error:
    raise BadImage(name, error.reason) from error


def _photograph(data, name, max_pixels, max_value):
  extra = extra_kinds.kind_of(data)
  if extra is not None:
    kind, raw = extra.name, _extra(extra, data, max_pixels)
  elif portable_anymap.is_binary(data):
    kind, raw = 'PBM, PGM or PPM', _anymap(data, max_pixels, max_value)
  else:
    of_pillow = image_kinds.kind_of(data)
    kind, raw = of_pillow.name, _pillow(of_pillow, data, max_pixels, max_value)
  found = metadata_blocks.find(kind, data, raw.info)
  texts = dict(raw.notes)
  if found.malformed:
    texts['metadata'] = f'its {" and ".join(found.malformed)} {_ARE_MALFORMED}'
  carried = found.carried
  # A profile for inks does not fit the grey or RGB that is written.
  if raw.is_srgb:
    carried = carried._replace(icc=None)
  elif carried.icc and not _fits(carried.icc, raw):
    carried = carried._replace(icc=None)
    texts['profile'] = 'its colour profile is not for its kind of colours'
  samples, alpha = _upright(raw)
  return Photograph(
    samples,
    alpha,
    kind,
    carried,
    jpeg_quality.estimate(data) if kind == 'JPEG' else None,
    tuple(image_notes.Note(key, name, text) for key, text in texts.items()),
  )


_ARE_MALFORMED = 'could not be read, and will not be in what is written'


def _fits(icc, raw):
  channels = 1 if raw.samples.ndim == 2 else raw.samples.shape[2]
  is_grey = channels - raw.has_alpha == 1
  return icc[16:20] == (b'GRAY' if is_grey else b'RGB ')


def _upright(raw):
  """Returns (samples [H, W, C], alpha [H, W] or None), upright."""
  samples = raw.samples if raw.samples.ndim == 3 else raw.samples[..., None]
  turned = rgb_pixels.turned(samples, raw.orientation)
  alpha = None
  if raw.has_alpha:
    alpha = np.ascontiguousarray(turned[..., -1])
    turned = turned[..., :-1]
    alpha.setflags(write=False)
  samples = np.ascontiguousarray(turned)
  samples.setflags(write=False)
  return samples, alpha


def _pillow(kind, data, max_pixels, max_value):
  """Returns the `_Raw` of a file of `image_kinds.KINDS`."""
  parts = kind.split(data)
  _refuse_high_dynamic_range(kind.name, data)
  if kind.name == 'TIFF' and tiff_samples.is_needed(data):
    return _planes(parts, max_pixels)
  with image_decoder.opened(kind, parts, max_pixels) as (image, parts, again):
    info = dict(image.info)
    icc = metadata_blocks.find(kind.name, data, info).carried.icc
    if deep_image.is_deep(image) or deep_image.is_associated(image):
      raw = _deep(image, parts, again, max_value, icc)
    else:
      raw = _shallow(image, icc)
    more = parts.has_more or image_kinds.has_more_frames(image)
  notes = raw.notes | ({'more': _MORE} if more else {})
  return raw._replace(orientation=parts.orientation, notes=notes, info=info)


def _planes(parts, max_pixels):
  """Returns the `_Raw` of a TIFF file that `tiff_samples` reads."""
  width, height = parts.size
  image_decoder.check_size(width, height, max_pixels)
  with image_decoder.reserve(width * height * tiff_samples.WORKING_BYTES):
    samples, associated = tiff_samples.read(parts)
    if parts.white_is_zero and samples.shape[2] == 2:
      samples[..., 0] = 65535 - samples[..., 0]
    if associated:
      samples = _divided(samples)
  notes = {'more': _MORE} if parts.has_more else {}
  has_alpha = samples.shape[2] in (2, 4)
  return _Raw(samples, has_alpha, parts.orientation, notes)


def _divided(samples):
  alpha = samples[..., -1]
  colours = transparency.divided(samples[..., :-1], alpha)
  return np.concatenate([colours, alpha[..., None]], axis=2)


def _refuse_high_dynamic_range(kind, data):
  name = _TRANSFERS.get(metadata_blocks.find(kind, data).transfer or 0)
  if name is not None:
    raise Unusable(
      f'its colours are of high dynamic range ({name}), which is not '
      'supported; convert it to a picture of standard dynamic range'
    )


def _deep(image, parts, again, max_value, icc):
  """Returns the `_Raw` of an opened image of more than 8 bits."""
  associated = deep_image.is_associated(image)
  samples, dark, is_hidden = deep_image.scaled(
    image, parts, again, max_value, full=65535
  )
  notes = {} if dark is None else {'dark': image_decoder.dark_text(dark)}
  if image.mode == 'CMYK':
    inks = Image.fromarray((samples >> 8).astype(np.uint8), 'CMYK')
    return _converted(inks, icc, notes)
  has_alpha = samples.ndim == 3 and samples.shape[2] in (2, 4)
  if associated:
    samples = _divided(samples)
  if is_hidden is not None and is_hidden.any():
    alpha = np.where(is_hidden, 0, 65535).astype(np.uint16)
    samples = np.dstack([samples, alpha])
    has_alpha = True
  return _Raw(samples, has_alpha, notes=notes)


def _shallow(image, icc):
  """Returns the `_Raw` of an opened image of 8 bits or fewer."""
  if image.mode in srgb_conversion.CONVERTED:
    return _converted(image, icc, {})
  has_alpha = image.has_transparency_data
  grey = image.mode in _GREY_MODES or _has_grey_palette(image)
  mode = ('L' if grey else 'RGB') + ('A' if has_alpha else '')
  if image.mode != mode:
    # Pillow has no direct way from a palette to grey with alpha.
    image = image.convert('RGBA' if mode == 'LA' else mode)
  samples = np.asarray(image)
  if mode == 'LA' and samples.shape[2] == 4:
    samples = samples[..., [0, 3]]
  return _Raw(samples, has_alpha)


def _has_grey_palette(image):
  if image.mode not in ('P', 'PA'):
    return False
  image.load()
  palette = np.array(image.getpalette('RGB') or [], np.uint8).reshape(-1, 3)
  return bool((palette == palette[:, :1]).all())


def _converted(image, icc, notes):
  """Returns the `_Raw` of a picture in inks or CIELab, in sRGB."""
  rgb, text = srgb_conversion.convert(image, icc)
  return _Raw(np.asarray(rgb), notes=notes | {'converted': text}, is_srgb=True)


def _anymap(data, max_pixels, max_value):
  """Returns the `_Raw` of a binary PGM or PPM file."""
  width, height, channels, white, start = portable_anymap.read_header(data)
  image_decoder.check_size(width, height, max_pixels)
  with image_decoder.reserve(8 * width * height):
    samples = portable_anymap.samples(
      data, (height, width, channels), white, start
    )
    full = 65535 if samples.dtype.itemsize > 1 else 255
    scaled = deep_samples.scale(
      samples, declared=white, max_value=max_value, full=full
    )
  dark = scaled.dark
  notes = {} if dark is None else {'dark': image_decoder.dark_text(dark)}
  return _Raw(scaled.pixels, notes=notes)


def _extra(kind, data, max_pixels):
  """Returns the `_Raw` of a file of `extra_kinds`."""
  _refuse_high_dynamic_range(kind.name, data)
  with extra_kinds.opened(kind, data) as file:
    width, height = file.size
    image_decoder.check_size(width, height, max_pixels)
    with image_decoder.reserve(width * height * kind.working_bytes):
      decoded = file.decode()
  return _Raw(
    decoded.samples,
    decoded.has_alpha,
    notes=decoded.notes,
    info=decoded.info,
    is_srgb=decoded.is_srgb,
  )
