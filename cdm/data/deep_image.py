"""Reads all bits of an opened image whose samples have more than eight.

Pillow itself keeps only the upper eight bits of 16-bit colours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cdm.data import deep_samples
from cdm.data.image_parts import ImageParts, Unusable

# Memory per pixel: two images of Pillow, their samples, and what is made.
WORKING_BYTES = 16
_GREY = ('I;16', 'I;16L', 'I;16B', 'I;16N')
# Pillow names 16-bit colours as RGB;16B. It takes the upper byte of each
# sample; with the name of the other byte order, it takes the lower one.
_OTHER_BYTE = {'N': 'B', 'L': 'B', 'B': 'L'}
_COLOURS = ('RGB', 'RGBA', 'RGBX', 'CMYK')
_ASSOCIATED = 'RGBa'
_GREY_ALPHA = 'LA;16B'
_PLANES, _SAMPLE_FORMAT = 284, 339  # tags of TIFF


class Shallow(NamedTuple):
  """An image with 8 bits per sample.

  Attributes:
    image: a Pillow image.
    dark: see `deep_samples.Scaled`.
    was_transparent: whether the colour that the file declares transparent
      occurred; such pixels were made white.
  """

  image: Image.Image
  dark: int | None = None
  was_transparent: bool = False


class Samples(NamedTuple):
  """The samples of an image, scaled by their white.

  Attributes:
    values: uint8 or uint16 [H, W] or [H, W, C]; C is 2 with alpha, 3 for
      colours, 4 for colours with alpha or for inks.
    dark: see `deep_samples.Scaled`.
    is_hidden: bool [H, W], which pixels have the colour that the file declares
      transparent; None if it declares none.
  """

  values: np.ndarray
  dark: int | None = None
  is_hidden: np.ndarray | None = None


def is_deep(image: Image.Image) -> bool:
  """Whether the samples of an opened image have more than eight bits."""
  colours, _, bits = _raw_mode(image).partition(';16')
  return image.mode[0] in 'IF' or (
    bool(bits) and (colours in _COLOURS or colours == 'LA')
  )


def is_associated(image: Image.Image) -> bool:
  """Whether 16-bit colours of an opened image are multiplied by their alpha.

  Pillow divides such colours, but hands over eight bits. `scaled` returns all
  bits, as the file stores them.
  """
  return _raw_mode(image).startswith(f'{_ASSOCIATED};16')


def shallow(
  image: Image.Image,
  parts: ImageParts,
  reopen: Callable[[], Any],
  max_value: float | None,
) -> Shallow:
  """Returns an image with samples scaled to eight bits.

  Args:
    image: a deep image, opened but not loaded.
    parts: the parts of its file.
    reopen: returns a context manager that opens the same file again.
    max_value: see `deep_samples.scale`.

  Raises:
    Unusable: the range of the samples is not known.
  """
  pixels, dark, is_hidden = scaled(image, parts, reopen, max_value)
  was_transparent = False
  if is_hidden is not None:
    pixels[is_hidden] = 255
    was_transparent = bool(is_hidden.any())
  return Shallow(_image(pixels, image.mode), dark, was_transparent)


def scaled(
  image: Image.Image,
  parts: ImageParts,
  reopen: Callable[[], Any],
  max_value: float | None,
  *,
  full: int = 255,
) -> Samples:
  """Returns the samples of an image, of which white has the value `full`.

  Args:
    image, parts, reopen, max_value: see `shallow`.
    full: 255 or 65535.

  Raises:
    Unusable: the range of the samples is not known.
  """
  if image.mode not in _GREY and image.mode[0] in 'IF':
    samples = _numbers(image, parts)
    if samples.dtype != np.uint16:
      whole = samples.dtype.kind in 'iu'
      kind = f'{parts.bits}-bit integers' if whole else 'fractions'
      values = deep_samples.scale_any(samples, kind, max_value, full=full)
      return Samples(full - values if parts.white_is_zero else values)
  elif image.mode in _GREY:
    samples = np.asarray(image)
  else:
    samples = _colours(image, reopen)
  inverted = parts.white_is_zero and samples.ndim == 2
  values, dark = _scaled(samples, parts, max_value, inverted, full)
  return Samples(values, dark, _hidden(samples, image.info.get('transparency')))


def _raw_mode(image):
  """Returns how Pillow names the samples as they are stored."""
  args = image.tile[0][3] if getattr(image, 'tile', None) else ''
  args = args[0] if isinstance(args, tuple) else args
  return args if isinstance(args, str) else ''


def _numbers(image, parts):
  """Returns the samples of an image of Pillow's modes I and F."""
  samples = np.asarray(image)
  tags = getattr(image, 'tag_v2', None)
  if tags is None:  # PGM in words, which Pillow has scaled to 16 bits
    return samples.astype(np.uint16)
  signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
  if image.mode[0] == 'I' and parts.bits == 32 and not signed:
    return samples.view(np.uint32)
  return samples


def _colours(image, reopen):
  """Returns uint16 [H, W, C] of an image with 16-bit colours."""
  if getattr(image, 'tag_v2', {}).get(_PLANES) == 2:
    raise Unusable(
      'the TIFF file stores 16-bit colours in separate planes, which is not '
      'supported; save it as a 16-bit PNG'
    )
  if _raw_mode(image) == _GREY_ALPHA:
    # A sample and its alpha have as many bytes as a pixel of RGBA.
    _rename(image, 'RGBA')
    return np.asarray(image).view('>u2').astype(np.uint16)
  name = _raw_mode(image).replace(_ASSOCIATED, 'RGBA')
  _rename(image, name)
  upper = np.asarray(image)
  samples = upper.astype(np.uint16)
  del upper
  samples <<= 8
  with reopen() as again:
    _rename(again, name[:-1] + _OTHER_BYTE[name[-1]])
    samples |= np.asarray(again)
  return samples


def _rename(image, raw_mode):
  image.tile = [
    tile._replace(
      args=(raw_mode, *tile.args[1:])
      if isinstance(tile.args, tuple)
      else raw_mode
    )
    for tile in image.tile
  ]


def _scaled(samples, parts, max_value, inverted, full):
  """Returns (scaled samples, the largest one or None, see `Scaled`)."""
  has_alpha = samples.ndim == 3 and samples.shape[2] in (2, 4)
  colours = samples[..., :-1] if has_alpha and parts.bits == 16 else samples
  if parts.bits < 16 and samples.ndim == 2 and parts.bits > 8:
    white = 2**parts.bits - 1  # twelve bits of TIFF
  else:
    significant = parts.significant_bits
    white = deep_samples.white_of_significant_bits(colours, significant)
  result = deep_samples.scale(
    colours, declared=white, max_value=max_value, inverted=inverted, full=full
  )
  if colours is samples:
    return result.pixels, result.dark
  alpha = samples[..., -1:]
  # An editor that made 16 bits of fewer did so for alpha, or did not.
  limit = max_value if white == 65535 else white
  within = limit is not None and alpha.max() <= limit
  alpha = deep_samples.scale(
    alpha, max_value=limit if within else 65535, full=full
  )
  return np.concatenate([result.pixels, alpha.pixels], axis=-1), result.dark


def _hidden(samples, transparent):
  """Returns which pixels have the transparent colour, or None without one."""
  if transparent is None or isinstance(transparent, bytes):
    return None
  if samples.ndim != np.ndim(transparent) + 2:
    return None
  same = samples == np.asarray(transparent)
  return same.all(-1) if same.ndim == 3 else same


def _image(pixels, mode):
  if pixels.ndim == 2:
    return Image.fromarray(pixels)
  height, width, channels = pixels.shape
  mode = {2: 'LA', 3: 'RGB'}.get(channels, mode)
  data = np.ascontiguousarray(pixels)
  return Image.frombuffer(mode, (width, height), data, 'raw', mode, 0, 1)
