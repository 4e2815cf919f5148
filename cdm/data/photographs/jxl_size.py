"""Reads the size of a JPEG XL image (ISO/IEC 18181-1) before it is decoded."""

import struct

from cdm.data.image_parts import Unreadable

_BITS = (9, 13, 18, 30)
# Width to height, by the three bits that state it.
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_BOX = b'jxlc', b'jxlp'


def of(data: bytes) -> tuple[int, int]:
  """Returns (width, height) of a file, as stored.

  Raises:
    Unreadable: the file does not begin with its size.
  """
  stream = _codestream(data)
  if len(stream) < 5:  # the shortest size that states width and height
    raise Unreadable('the JPEG XL file is cut off')
  number, at = int.from_bytes(stream[2:14], 'little'), 0

  def take(bits):
    nonlocal at
    value = number >> at & (1 << bits) - 1
    at += bits
    return value

  def side(is_small):
    if is_small:
      return 8 * (take(5) + 1)
    return take(_BITS[take(2)]) + 1

  is_small = take(1)
  height = side(is_small)
  ratio = _RATIOS[take(3)]
  if ratio is None:
    return side(is_small), height
  return height * ratio[0] // ratio[1], height


def _codestream(data):
  """Returns the first bytes of the compressed image."""
  if data[:2] == b'\xff\x0a':
    return data[:16]
  at = 0
  while at + 8 <= len(data):
    length, kind = struct.unpack_from('>I4s', data, at)
    head = 8
    if length == 1 and at + 16 <= len(data):
      length, head = struct.unpack_from('>Q', data, at + 8)[0], 16
    if kind in _BOX:
      start = at + head + 4 * (kind == b'jxlp')
      return data[start : start + 16]
    if length < 8:
      break
    at += length
  raise Unreadable('the JPEG XL file holds no image')
