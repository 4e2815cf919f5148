"""Takes the metadata of a TIFF file's first page, and puts them into another.

The first directory of a TIFF file and the one of an EXIF block are one thing,
so the entries about the camera become an EXIF block and the other way round.
"""

import struct
from fractions import Fraction

from cdm.data import tiff_tags
from cdm.data.photographs import exif_block, tiff_directory
from cdm.data.photographs.carried_metadata import Carried, Resolution
from cdm.data.photographs.tiff_directory import Directory, Value

_X, _Y, _UNIT = 282, 283, 296
_XMP, _IPTC, _ICC, _EXIF, _GPS, _INTEROP = (
  700,
  33723,
  34675,
  34665,
  34853,
  40965,
)
# Entries that are about the photograph and not about this file's samples.
_ABOUT = {
  269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316,
  18246, 18249, 33432, 40091, 40092, 40093, 40094, 40095,
}  # fmt: skip
_ORIENTATION, _SOFTWARE = 274, 305
_UNITS = {2: 'inch', 3: 'cm'}


def read(data: bytes) -> Carried:
  """Returns the metadata of a TIFF file; what is malformed is left out."""
  layout, start = tiff_tags.layout_of(data)
  first = tiff_directory.read(data, layout, start)

  def content(tag):
    return first[tag].data if tag in first else None

  return Carried(
    icc=content(_ICC),
    exif=_exif(data, layout, first),
    xmp=content(_XMP),
    iptc=content(_IPTC),
    resolution=resolution(first, layout.order),
  )


def resolution(directory: Directory, order: str) -> Resolution | None:
  """Returns the resolution that a directory states, None without a unit."""
  unit = _UNITS.get(tiff_directory.number(directory, _UNIT, order) or 2)
  numbers = []
  for tag in (_X, _Y):
    value = directory.get(tag)
    if value is None or value.kind != 5:
      return None
    above, below = struct.unpack_from(order + 'II', value.data)
    if not above or not below:
      return None
    numbers.append(Fraction(above, below))
  return Resolution(numbers[0], numbers[1], unit) if unit else None


def resolution_entries(given: Resolution | None, order: str) -> Directory:
  """Returns the entries that state a resolution."""
  if given is None:
    return {}
  unit = {'inch': 2, 'cm': 3}[given.unit]
  entries = {_UNIT: Value(3, 1, struct.pack(order + 'H', unit))}
  for tag, fraction in ((_X, given.x), (_Y, given.y)):
    short = fraction.limit_denominator(10_000)
    packed = struct.pack(order + 'II', short.numerator, short.denominator)
    entries[tag] = Value(5, 1, packed)
  return entries


def small_block(software: str | None, given: Resolution | None) -> bytes | None:
  """Returns an EXIF block for a picture that had none, None if it is empty.

  Args:
    software: what made the picture.
    given: its resolution.
  """
  entries = resolution_entries(given, '<')
  if software is not None:
    text = software.encode('ascii', 'replace') + b'\0'
    entries[_SOFTWARE] = Value(2, len(text), text)
  if not entries:
    return None
  body, at = tiff_directory.pack(entries, order='<', at=8)
  return b'II*\0' + struct.pack('<I', at) + body


def of_block(exif: bytes, order: str) -> Directory:
  """Returns the entries of an EXIF block's first directory to be copied.

  Pointers to further directories are not among them.

  Args:
    exif: a sound block.
    order: the wanted byte order of the values, '<' or '>'.
  """
  layout, start = tiff_tags.layout_of(exif)
  first = tiff_directory.read(exif, layout, start)
  about = {tag: first[tag] for tag in first if tag in _ABOUT}
  return tiff_directory.ordered(about, layout.order, order)


def pointers_of_block(exif: bytes) -> Directory:
  """Returns the entries of an EXIF block that lead to further directories."""
  layout, start = tiff_tags.layout_of(exif)
  first = tiff_directory.read(exif, layout, start)
  return {tag: first[tag] for tag in (_EXIF, _GPS) if tag in first}


def repacked(exif: bytes, *, at: int) -> tuple[bytes, Directory]:
  """Returns an EXIF block's further directories for a place in a BigTIFF file.

  The file is in little endian: Pillow cannot read the other kind of BigTIFF.

  Args:
    exif: a sound block.
    at: where the bytes will be, an even offset.

  Returns:
    (bytes, entries that lead to them).
  """
  layout, start = tiff_tags.layout_of(exif)
  first = tiff_directory.read(exif, layout, start)
  return _further(exif, layout, first, at=at, order='<', big=True)


def _exif(data, layout, first):
  """Returns an EXIF block of the entries about the photograph, or None."""
  about = {
    tag: first[tag] for tag in first if tag in _ABOUT and tag != _ORIENTATION
  }
  further, pointers = _further(data, layout, first, at=8, order=layout.order)
  about |= pointers
  if not about:
    return None
  body, at = tiff_directory.pack(about, order=layout.order, at=8 + len(further))
  mark = b'II*\0' if layout.order == '<' else b'MM\0*'
  block = mark + struct.pack(layout.order + 'I', at) + further + body
  return block if exif_block.is_sound(block) else None


def _further(data, layout, first, *, at, order, big=False):
  """Returns (the directories of EXIF and GPS, the entries that lead there)."""
  packed, pointers = b'', {}
  for tag in (_EXIF, _GPS):
    start = tiff_directory.number(first, tag, layout.order)
    if start is None:
      continue
    try:
      inner = tiff_directory.read(data, layout, start)
    except struct.error:
      continue
    # What interoperability says is about the file of the camera.
    inner.pop(_INTEROP, None)
    inner = tiff_directory.ordered(inner, layout.order, order)
    body, place = tiff_directory.pack(
      inner, order=order, at=at + len(packed), big=big
    )
    packed += body + bytes(len(body) % 2)
    pointers[tag] = tiff_directory.pointer(place, order=order, big=big)
  return packed, pointers
