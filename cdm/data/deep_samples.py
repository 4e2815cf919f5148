"""Scales the samples of images of more than 8 bits to 8 or 16 whole bits.

A 16-bit file may hold fewer bits: the raw values of a camera with 10 or 12 bits
look nearly black if 65535 is taken for white. So the value of white is the
largest that the file declares, or else one that the user states, or else 65535.
"""

import functools
from typing import NamedTuple

import numpy as np

from cdm.data.image_parts import Unusable

_FULL = 65535
_SIXTEENTH = 4096


class Scaled(NamedTuple):
  """Samples scaled to 8 or 16 bits.

  Attributes:
    pixels: uint8 or uint16, shaped as the samples were.
    dark: the largest sample, if the samples use at most a sixteenth of 16 bits
      and nothing states that they have fewer; else None.
  """

  pixels: np.ndarray
  dark: int | None = None


def scale(
  samples: np.ndarray,
  *,
  declared: int | None = None,
  max_value: float | None = None,
  inverted: bool = False,
  full: int = 255,
) -> Scaled:
  """Scales unsigned samples of at most 16 bits to 8 bits, or to 16.

  Args:
    samples: uint8 or uint16, of any shape and byte order.
    declared: the value of white that the file declares, or None.
    max_value: the value of white that the user states for files that declare
      none or the largest of 16 bits; or None.
    inverted: whether that value means black.
    full: the value of white in the result, 255 or 65535.
  """
  white, dark = declared or _FULL, None
  if white >= _FULL:
    white = max_value or _FULL
    if max_value is None and samples.dtype.itemsize > 1:
      largest = int(samples.max())
      dark = largest if 0 < largest < _SIXTEENTH else None
  return Scaled(_table(float(white), inverted, full)[samples], dark)


def scale_any(
  samples: np.ndarray, kind: str, max_value: float | None, *, full: int = 255
) -> np.ndarray:
  """Scales samples of a type without a usual range, 0 to max_value.

  Args:
    samples: of any type and shape.
    kind: what the samples are, e.g. '32-bit integers'.
    max_value: the value of white; None if the user has stated none.
    full: the value of white in the result, 255 or 65535.

  Returns:
    uint8 or uint16, shaped as the samples; not a number counts as 0.

  Raises:
    Unusable: max_value is None.
  """
  if max_value is None:
    raise Unusable(
      f'its samples are {kind}, and nothing states which value is white; give '
      'max_value (--max_value=V), or save the image with 8 or 16 bits'
    )
  pixels = np.empty(samples.shape, _dtype(full))
  for row in range(len(samples)):  # so that little memory is needed
    scaled = np.nan_to_num(samples[row].astype(np.float64)) * (full / max_value)
    pixels[row] = np.floor(np.clip(scaled, 0, full) + 0.5)
  return pixels


def white_of_significant_bits(samples: np.ndarray, bits: int | None) -> int:
  """Returns the value of white of 16-bit samples with fewer significant bits.

  By the PNG specification (sBIT), the samples were scaled up to 16 bits, and
  65535 is white. Many programs store them as they are instead. They did so if
  no sample is larger than the bits allow, and if some sample cannot come from
  scaling up, with zeros or with copies of the upper bits below.

  Args:
    samples: uint16.
    bits: number of significant bits that the file declares, or None.
  """
  if bits is None or not 0 < bits < 16:
    return _FULL
  white = 2**bits - 1
  if samples.max() > white:
    return _FULL
  seen = np.zeros(_FULL + 1, bool)
  seen[samples] = True
  values = np.flatnonzero(seen)
  shifted = values >> (16 - bits) << (16 - bits)
  nearest = np.rint(np.rint(values * (white / _FULL)) * (_FULL / white))
  if np.all((values == shifted) | (values == nearest)):
    return _FULL
  return white


def _dtype(full):
  return np.uint8 if full == 255 else np.uint16


@functools.lru_cache(16)
def _table(white, inverted, full):
  """Returns [65536], the scaled sample of every sample."""
  samples = np.arange(_FULL + 1)
  # A sample plus half is never on an integer's border for white = 65535.
  scaled = np.floor(samples * (full / white) + 0.5)
  table = np.minimum(scaled, full).astype(_dtype(full))
  table = full - table if inverted else table
  table.setflags(write=False)
  return table
