"""Defines the parts of an image file besides its compressed pixels.

Pillow interprets metadata while it opens a file, and refuses sound pixels
because of a malformed location, comment or colour profile. The modules
`png_chunks`, `jpeg_segments`, `tiff_tags` and `webp_chunks` therefore take the
metadata out of a file before Pillow sees it, and this module reads the two
things that matter: the orientation, and the name of the colour profile.
"""

import re
import struct
from typing import NamedTuple

_ORIENTATION = 0x0112
# How TIFF, and so EXIF, stores whole numbers: {type: struct format}.
NUMBERS = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}
# Descriptions of common small profiles that equal sRGB but do not say so.
_SRGB_NAMES = ('c2', 'c2ci', 'urgb')


class Unreadable(Exception):
  """An image file cannot be read; `reason` says why, as a clause."""

  def __init__(self, reason: str):
    super().__init__(reason)
    self.reason = reason


class Unusable(Unreadable):
  """An image file is not damaged, but cannot be used as it is."""


class ImageParts(NamedTuple):
  """An image file without its metadata, and what the metadata said.

  Attributes:
    data: bytes of a file with the same pixels and nothing else.
    size: (width, height); None if only Pillow can tell.
    orientation: 1 to 8, as in EXIF.
    profile: name of a colour profile other than sRGB, or None.
    has_more: whether further frames or pages follow the first.
    significant_bits: bits of a sample as the file declares them, or None.
    white_is_zero: whether the largest value of a grey image means black.
    bits: bits per sample as stored; 8 where it does not matter.
    working_bytes: memory per pixel that decoding takes besides the image.
    sampling: of a JPEG file of 8-bit samples and Huffman codes, the sampling
      factors of its channels, a byte each as in its frame header; else None.
  """

  data: bytes
  size: tuple[int, int] | None = None
  orientation: int = 1
  profile: str | None = None
  has_more: bool = False
  significant_bits: int | None = None
  white_is_zero: bool = False
  bits: int = 8
  working_bytes: int = 0
  sampling: bytes | None = None


def orientation_of(exif: bytes | None, xmp: bytes | None = None) -> int:
  """Returns the orientation, 1 to 8, that EXIF or else XMP states.

  Nothing else of the metadata is looked at, so nothing else can be wrong. An
  orientation that cannot be read counts as 1, which is upright.

  Args:
    exif: an EXIF block, with or without its first six bytes 'Exif' 0 0.
    xmp: an XMP packet.
  """
  orientation = _exif_orientation(exif or b'')
  if orientation is None and xmp:
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])["<]', xmp)
    orientation = int(found[1]) if found else None
  return orientation or 1


def _exif_orientation(exif):
  """Returns the orientation in the first directory of an EXIF block."""
  block = exif.removeprefix(b'Exif\0\0')
  order = {b'II*\0': '<', b'MM\0*': '>'}.get(block[:4])
  try:
    if order is None:
      return None
    start = struct.unpack_from(order + 'I', block, 4)[0]
    count = struct.unpack_from(order + 'H', block, start)[0]
    for at in range(start + 2, start + 2 + 12 * count, 12):
      tag, kind, values = struct.unpack_from(order + 'HHI', block, at)
      if tag == _ORIENTATION and kind in NUMBERS and values == 1:
        number = struct.unpack_from(order + NUMBERS[kind], block, at + 8)[0]
        return number if 1 <= number <= 8 else None
  except struct.error:  # The block is cut off, or its offsets are not sound.
    pass
  return None


def profile_name(icc: bytes) -> str | None:
  """Returns the name of an ICC colour profile, or None if it is sRGB."""
  name = _description(icc)
  plain = name.lower()
  if 'srgb' in plain or plain in _SRGB_NAMES:
    return None
  return ''.join(c for c in name if c.isprintable())[:40] or 'unnamed'


def _description(icc):
  """Returns the text of the tag 'desc' of an ICC profile, '' without one."""
  try:
    count = struct.unpack_from('>I', icc, 128)[0]
    for i in range(min(count, 100)):
      tag, start, _ = struct.unpack_from('>4sII', icc, 132 + 12 * i)
      if tag != b'desc':
        continue
      if icc[start : start + 4] == b'mluc':  # version 4: translations
        length, offset = struct.unpack_from('>II', icc, start + 20)
        text = icc[start + offset : start + offset + min(length, 200)]
        return text.decode('utf-16-be', 'ignore').rstrip('\0')
      length = struct.unpack_from('>I', icc, start + 8)[0]
      text = icc[start + 12 : start + 12 + min(length, 200)]
      return text.split(b'\0')[0].decode('latin-1')
  except struct.error:
    pass
  return ''
