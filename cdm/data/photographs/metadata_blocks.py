"""Finds the metadata of a picture file of any kind, as blocks of bytes.

A malformed block is left out and named. It never makes sound pixels unreadable.
"""

import re
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from cdm.data import jpeg_segments, png_chunks, tiff_tags
from cdm.data.photographs import (
  carried_metadata,
  exif_block,
  tiff_directory,
  tiff_metadata,
  xmp_packet,
)
from cdm.data.photographs.carried_metadata import Carried, Resolution

_MOST_BYTES = 2**26  # of a block that a PNG file has compressed
_PNG_TEXTS = (b'tEXt', b'zTXt', b'iTXt')


class Found(NamedTuple):
  """The metadata of a file.

  Attributes:
    carried: what is sound.
    malformed: names of the blocks that are not.
    transfer: the code of ITU-T H.273 for the transfer function, if the file
      states one.
  """

  carried: Carried
  malformed: tuple[str, ...] = ()
  transfer: int | None = None


def find(kind: str, data: bytes, info: dict | None = None) -> Found:
  """Returns the metadata of a file.

  Args:
    kind: the name of its kind, see `image_kinds.KINDS`.
    data: its bytes.
    info: what a decoder found, for kinds whose structure only it knows.
  """
  reader = _READERS.get(kind)
  try:
    carried = reader(data) if reader else _of_info(info or {})
  except (struct.error, ValueError, IndexError):
    return Found(Carried(), ('metadata',))
  carried, malformed = _sound(carried)
  return Found(carried, malformed, _transfer(kind, data, carried))


def _sound(carried):
  """Returns (what is sound, names of the blocks that are not)."""
  checks: dict[str, tuple[str, Callable[[bytes], bool]]] = {
    'icc': (carried_metadata.ICC, _is_icc),
    'exif': (carried_metadata.EXIF, exif_block.is_sound),
    'xmp': (carried_metadata.XMP, xmp_packet.is_sound),
    'iptc': (carried_metadata.IPTC, lambda block: block[:1] == b'\x1c'),
  }
  wrong = {
    field: name
    for field, (name, is_sound) in checks.items()
    if (block := getattr(carried, field)) and not is_sound(block)
  }
  empty = [field for field in checks if not getattr(carried, field)]
  nothing = dict.fromkeys([*wrong, *empty])
  return carried._replace(**nothing), tuple(wrong.values())


def _is_icc(block):
  return len(block) >= 132 and block[36:40] == b'acsp'


def _of_jpeg(data):
  found: dict[str, Any] = {}
  icc, resolution = {}, None
  for marker, start, end in jpeg_segments.segments(data):
    body = data[start + 4 : end]
    if marker == 0xE0 and body.startswith(b'JFIF\0') and len(body) >= 12:
      unit, x, y = struct.unpack_from('>BHH', body, 7)
      name = {1: 'inch', 2: 'cm'}.get(unit)
      if name and x and y:
        resolution = Resolution(Fraction(x), Fraction(y), name)
    elif marker == 0xE1 and body.startswith(b'Exif\0\0'):
      found.setdefault('exif', body[6:])
    elif marker == 0xE1 and body.startswith(jpeg_segments.XMP):
      found.setdefault('xmp', body[len(jpeg_segments.XMP) :])
    elif marker == 0xE2 and body.startswith(b'ICC_PROFILE\0'):
      icc.setdefault(body[12], body[14:])
    elif marker == 0xED and body.startswith(b'Photoshop 3.0\0'):
      records = _of_photoshop(body[14:])
      if records:
        found.setdefault('iptc', records)
    elif marker == 0xFE:
      found.setdefault('comment', body)
  if icc:
    found['icc'] = b''.join(icc[number] for number in sorted(icc))
  return Carried(
    resolution=resolution or _of_exif_alone(found.get('exif')), **found
  )


def _of_exif_alone(exif):
  """Returns the resolution that an EXIF block states."""
  if exif is None or not exif_block.is_sound(exif):
    return None
  try:
    layout, start = tiff_tags.layout_of(exif)
    first = tiff_directory.read(exif, layout, start)
    return tiff_metadata.resolution(first, layout.order)
  except struct.error:
    return None


def _of_photoshop(data):
  """Returns the IPTC records in the image resources of Photoshop, or None."""
  at = 0
  while data[at : at + 4] == b'8BIM' and at + 12 <= len(data):
    number, name = struct.unpack_from('>HB', data, at + 4)
    at += 6 + (name + 2) // 2 * 2
    length = struct.unpack_from('>I', data, at)[0]
    if number == 0x0404:
      return data[at + 4 : at + 4 + length]
    at += 4 + (length + 1) // 2 * 2
  return None


def _of_png(data):
  found: dict[str, Any] = {}
  kept, resolution = [], None
  for kind, start, end in png_chunks.chunks(data):
    body = data[start:end]
    if kind == b'eXIf':
      found['exif'] = body.removeprefix(b'Exif\0\0')
    elif kind == b'iCCP':
      _, _, rest = body.partition(b'\0')
      # What cannot be expanded is no profile, and is named as such.
      found['icc'] = _expanded(rest[1:]) or b'?'
    elif kind == b'pHYs' and len(body) == 9 and body[8] == 1:
      x, y = struct.unpack('>II', body[:8])
      if x and y:
        resolution = Resolution(Fraction(x, 100), Fraction(y, 100), 'cm')
    elif kind in _PNG_TEXTS:
      field, block = _of_text(kind, body)
      if field:
        found.setdefault(field, block)
      else:
        kept.append((kind, body))
    elif kind in carried_metadata.COLOUR_CHUNKS:
      kept.append((kind, body))
  return Carried(resolution=resolution, chunks=tuple(kept), **found)


def _of_text(kind, body):
  """Returns (field of `Carried`, block) of a chunk, or (None, b'')."""
  key, _, rest = body.partition(b'\0')
  if key == b'XML:com.adobe.xmp':
    packet = rest[2:].split(b'\0', 2)[-1]
    return 'xmp', _expanded(packet) if rest[:1] == b'\1' else packet
  field = {
    b'Raw profile type exif': 'exif',
    b'Raw profile type APP1': 'exif',
    b'Raw profile type iptc': 'iptc',
  }.get(key)
  if field is None:
    return None, b''
  words = (_expanded(rest[1:]) if kind == b'zTXt' else rest).split()
  try:
    block = bytes.fromhex(b''.join(words[2:]).decode('ascii', 'replace'))
  except ValueError:
    return field, b'?'  # It will be named as malformed.
  if field == 'iptc':
    return field, _of_photoshop(block) or block
  return field, block.removeprefix(b'Exif\0\0')


def _expanded(packed):
  try:
    return zlib.decompressobj().decompress(packed, _MOST_BYTES)
  except zlib.error:
    return b''


def _of_webp(data):
  found: dict[str, Any] = {}
  at = 12
  while at + 8 <= len(data):
    kind, length = struct.unpack_from('<4sI', data, at)
    field = {b'EXIF': 'exif', b'XMP ': 'xmp', b'ICCP': 'icc'}.get(kind)
    if field:
      block = data[at + 8 : at + 8 + length]
      found.setdefault(field, block.removeprefix(b'Exif\0\0'))
    at += 8 + length + length % 2
  return Carried(resolution=_of_exif_alone(found.get('exif')), **found)


def _of_bmp(data):
  if len(data) < 46:
    return Carried()
  x, y = struct.unpack_from('<ii', data, 38)
  if x <= 0 or y <= 0:
    return Carried()
  return Carried(
    resolution=Resolution(Fraction(x, 100), Fraction(y, 100), 'cm')
  )


def _of_info(info):
  """Returns what a decoder of AVIF, HEIC or JPEG XL has found."""
  exif = (info.get('exif') or b'').removeprefix(b'Exif\0\0')
  return Carried(
    icc=info.get('icc_profile'),
    exif=exif,
    xmp=info.get('xmp'),
    resolution=_of_exif_alone(exif or None),
  )


def _transfer(kind, data, carried):
  """Returns the code of the transfer function that a file states, or None."""
  for name, body in carried.chunks:
    if name == b'cICP' and len(body) == 4:
      return body[1]
  if carried.icc:
    count = struct.unpack_from('>I', carried.icc, 128)[0]
    for i in range(min(count, 100)):
      at = 132 + 12 * i
      if carried.icc[at : at + 4] == b'cicp':
        start = struct.unpack_from('>I', carried.icc[at : at + 8], 4)[0]
        return next(iter(carried.icc[start + 9 : start + 10]), None)
  if kind in ('AVIF', 'HEIC'):
    stated = re.search(rb'colrnclx..(..)', data[: 2**20], re.DOTALL)
    return stated[1][1] if stated else None
  return None


_READERS: dict[str, Callable[[bytes], Carried]] = {
  'JPEG': _of_jpeg,
  'PNG': _of_png,
  'WebP': _of_webp,
  'TIFF': tiff_metadata.read,
  'BMP': _of_bmp,
}
