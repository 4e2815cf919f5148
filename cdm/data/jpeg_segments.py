"""Splits a JPEG file into its segments, and takes the metadata out."""

import struct
from collections.abc import Iterator

from cdm.data.image_parts import (
  ImageParts,
  Unreadable,
  orientation_of,
  profile_name,
)

_EXIF = b'Exif\0\0'
XMP = b'http://ns.adobe.com/xap/1.0/\0'
_ICC = b'ICC_PROFILE\0'
_MULTIPLE = b'MPF\0'
# Start of frame: a size follows. The other three of this range are tables.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_HUFFMAN = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive
_ALONE = {0x01, 0xD8, *range(0xD0, 0xD8)}  # markers without a length
# APP0 and APP14 tell the decoder what the channels mean; the other application
# segments and comments are metadata.
_METADATA = {*range(0xE1, 0xEE), 0xEF, 0xFE}
_SCAN = 0xDA
# Each scan of a progressive file passes over all pixels. A real file has about
# ten, and a hostile one as many as its bytes allow.
_MAX_SCANS = 500


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields (marker, start, end) of each segment up to the first scan's.

  The content of a segment begins four bytes after its start. The end may lie
  beyond that of a torn file.
  """
  at = 2
  while at + 4 <= len(data) and data[at] == 0xFF:
    marker = data[at + 1]
    if marker == 0xFF:  # filling
      at += 1
      continue
    if marker in _ALONE:
      at += 2
      continue
    end = at + 2 + struct.unpack_from('>H', data, at + 2)[0]
    yield marker, at, end
    if marker == _SCAN:
      return
    at = max(end, at + 2)


def split(data: bytes) -> ImageParts:
  """Returns a JPEG file without its metadata, and what they said.

  Raises:
    Unreadable: the file is progressive with an absurd number of scans.
  """
  kept, at, size, working = [data[:2]], 2, None, 0
  sampling = None
  found: dict[bytes, list[bytes]] = {}
  for marker, start, end in segments(data):
    if marker == _SCAN:
      at = start
      break
    at = max(end, start + 2)
    body = data[start + 4 : end]
    if marker in _METADATA:
      for name in (_EXIF, XMP, _ICC, _MULTIPLE):
        if body.startswith(name):
          found.setdefault(name, []).append(body[len(name) :])
    else:
      kept.append(data[start:end])
    if marker in _FRAMES and len(body) >= 6 and size is None:
      height, width, channels = struct.unpack_from('>HHB', body, 1)
      size = (width, height)
      # The coefficients of all scans are kept, two bytes for each sample.
      working = 2 * channels if marker in _PROGRESSIVE else 0
      # Identifier, sampling factors and quantization table of each channel.
      if marker in _HUFFMAN and body[0] == 8 and len(body) == 6 + 3 * channels:
        sampling = body[7::3]
  if working and data.count(b'\xff\xda', at) > _MAX_SCANS:
    raise Unreadable(
      f'the JPEG file has more than {_MAX_SCANS} scans, as no camera or '
      'program writes them'
    )
  icc = b''.join(part[2:] for part in found.get(_ICC, ()))
  return ImageParts(
    b''.join([*kept, data[at:]]) if found else data,
    size=size,
    orientation=orientation_of(
      *(found.get(name, [None])[0] for name in (_EXIF, XMP))
    ),
    profile=profile_name(icc) if icc else None,
    has_more=_MULTIPLE in found,
    working_bytes=working,
    sampling=sampling,
  )
