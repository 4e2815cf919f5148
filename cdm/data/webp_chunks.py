"""Reads the size and the metadata of a WebP file.

Pillow makes room for the pixels as soon as it opens a WebP file, so the size
must be known before.
"""

import struct

from cdm.data.image_parts import (
  ImageParts,
  Unreadable,
  orientation_of,
  profile_name,
)


def split(data: bytes) -> ImageParts:
  """Returns the parts of a WebP file; Pillow ignores malformed metadata.

  Raises:
    Unreadable: the file has no size.
  """
  found, at = {}, 12
  while at + 8 <= len(data):
    kind, length = struct.unpack_from('<4sI', data, at)
    # Compressed frames are not copied; only their first bytes hold the size.
    metadata = kind in (b'EXIF', b'XMP ', b'ICCP')
    end = at + 8 + (length if metadata else min(length, 32))
    found.setdefault(kind, data[at + 8 : end])
    at += 8 + length + length % 2
  try:
    size = _size(found)
  except struct.error:
    size = None
  if size is None:
    raise Unreadable('the WebP file is cut off or damaged')
  icc = found.get(b'ICCP')
  return ImageParts(
    data,
    size=size,
    orientation=orientation_of(found.get(b'EXIF'), found.get(b'XMP ')),
    profile=profile_name(icc) if icc else None,
    has_more=b'ANMF' in found,
    # Two canvases of the animation decoder, and the bytes handed over.
    working_bytes=12,
  )


def _size(found):
  """Returns (width, height) by the first chunk that states it."""
  if b'VP8X' in found:
    packed = struct.unpack_from('<HBHB', found[b'VP8X'], 4)
    return packed[0] + (packed[1] << 16) + 1, packed[2] + (packed[3] << 16) + 1
  if b'VP8L' in found:
    bits = struct.unpack_from('<I', found[b'VP8L'], 1)[0]
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
  if b'VP8 ' in found:
    width, height = struct.unpack_from('<HH', found[b'VP8 '], 6)
    return width & 0x3FFF, height & 0x3FFF
  return None
