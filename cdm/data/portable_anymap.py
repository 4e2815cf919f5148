"""Reads binary PGM and PPM files, whose header declares the value of white.

Pillow reads those with another maximum than 255 one sample at a time, which
takes minutes for a photograph.
"""

import re

import numpy as np

from cdm.data.image_parts import Unreadable

_BLANK = rb'(?:\s|#[^\r\n]*[\r\n])+'
_HEADER = re.compile(rb'P([56])' + 3 * (_BLANK + rb'(\d{1,9})') + rb'\s')


def is_binary(data: bytes) -> bool:
  """Whether the first bytes are those of a binary PGM or PPM file."""
  return data[:2] in (b'P5', b'P6')


def read_header(data: bytes) -> tuple[int, int, int, int, int]:
  """Returns (width, height, channels, value of white, start of the samples).

  Raises:
    Unreadable: the header is not complete, or a number is out of range.
  """
  header = _HEADER.match(data)
  if header is None:
    raise Unreadable('the header of the PGM or PPM file is cut off or damaged')
  width, height, white = map(int, header.groups()[1:])
  if not (width and height and 0 < white < 65536):
    raise Unreadable(
      f'the header of the PGM or PPM file states {width}x{height} pixels and '
      f'the maximum {white}'
    )
  return width, height, 3 if header[1] == b'6' else 1, white, header.end()


def samples(
  data: bytes, shape: tuple[int, int, int], white: int, start: int
) -> np.ndarray:
  """Returns the samples of a file as uint8 or big-endian uint16 [H, W, C].

  Raises:
    Unreadable: the file has fewer samples.
  """
  kind = np.dtype(np.uint8 if white < 256 else '>u2')
  count = shape[0] * shape[1] * shape[2]
  if len(data) - start < count * kind.itemsize:
    raise Unreadable('the PGM or PPM file is cut off')
  return np.frombuffer(data, kind, count, start).reshape(shape)
