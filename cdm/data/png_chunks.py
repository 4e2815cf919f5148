"""Splits a PNG file into chunks, and checks whether a PNG file is whole."""

import struct
import zlib
from collections.abc import Iterator

from cdm.data.image_parts import (
  ImageParts,
  Unreadable,
  orientation_of,
  profile_name,
)

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_TEXT_BYTES = 2**20  # Compressed metadata are not expanded beyond this.
_KEPT_CHUNKS = (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND')


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Yields (type, start of the content, end of the content) of each chunk.

  It ends after IEND, and before a chunk that is not complete.
  """
  at = len(SIGNATURE)
  while at + 12 <= len(data):
    length, kind = struct.unpack_from('>I4s', data, at)
    end = at + 8 + length
    if end + 4 > len(data):
      return
    yield kind, at + 8, end
    if kind == b'IEND':
      return
    at = end + 4


def is_whole(data: bytes) -> bool:
  """Whether a PNG file is complete and all its checksums are right.

  No pixel is decoded, so this takes a small part of the time of reading.
  """
  if not data.startswith(SIGNATURE):
    return False
  last = None
  for kind, start, end in chunks(data):
    last = kind
    checksum = struct.unpack_from('>I', data, end)[0]
    if zlib.crc32(memoryview(data)[start - 4 : end]) != checksum:
      return False
  return last == b'IEND'


def split(data: bytes) -> ImageParts:
  """Returns a PNG file without its metadata, and what they said.

  Of an animation, the image that viewers without animation show remains.

  Raises:
    Unreadable: the file does not begin with its size.
  """
  found: dict[bytes, tuple[int, int]] = {}
  kept, dropped, at = [memoryview(data)[: len(SIGNATURE)]], False, 8
  exif, xmp = None, None
  for kind, start, end in chunks(data):
    found.setdefault(kind, (start, end))
    at = end + 4
    if kind in _KEPT_CHUNKS:
      kept.append(memoryview(data)[start - 8 : at])
      continue
    dropped = True
    if kind == b'eXIf':
      exif = exif or data[start:end]
    elif kind in (b'iTXt', b'tEXt', b'zTXt'):
      exif, xmp = _from_text(kind, data[start:end], exif, xmp)
  if b'IEND' not in found:
    kept.append(memoryview(data)[at:])  # Pillow decides what a torn file has.
  if b'IHDR' not in found or found[b'IHDR'] != (16, 29):
    raise Unreadable('the PNG file is cut off or damaged')
  width, height, bits = struct.unpack_from('>IIB', data, 16)
  significant = data[slice(*found.get(b'sBIT', (0, 0)))]
  return ImageParts(
    b''.join(kept) if dropped else data,
    size=(width, height),
    orientation=orientation_of(exif, xmp),
    profile=_profile(data, found),
    has_more=b'fdAT' in found,
    significant_bits=max(significant, default=None),
    bits=bits,
  )


def _from_text(kind, text, exif, xmp):
  """Returns (exif, xmp), of which one may come from a chunk of text."""
  key, _, rest = text.partition(b'\0')
  if key == b'XML:com.adobe.xmp':
    # After two bytes for the compression, iTXt has two more texts that end
    # in 0.
    body = rest[2:].split(b'\0', 2)[-1]
    return exif, xmp or (_expanded(body) if rest[:1] == b'\1' else body)
  if key == b'Raw profile type exif' and exif is None:
    body = _expanded(rest[1:]) if kind == b'zTXt' else rest
    digits = b''.join(body.split()[2:])  # after a name and a length
    try:
      return bytes.fromhex(digits.decode('ascii')), xmp
    except ValueError:
      pass
  return exif, xmp


def _profile(data, found):
  if b'cICP' in found:
    primaries = data[found[b'cICP'][0]]
    return None if primaries == 1 else f'cICP primaries {primaries}'
  if b'iCCP' not in found or b'sRGB' in found:
    return None
  start, end = found[b'iCCP']
  _, _, rest = data[start:end].partition(b'\0')
  return profile_name(_expanded(rest[1:]))


def _expanded(packed):
  """Returns the first part of a zlib stream, b'' of a damaged one."""
  try:
    return zlib.decompressobj().decompress(packed, _TEXT_BYTES)
  except zlib.error:
    return b''
