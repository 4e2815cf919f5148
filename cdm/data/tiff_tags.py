"""Reads the tags of a TIFF file's first page, and takes the metadata out."""

import struct
from typing import Any, NamedTuple

from cdm.data.image_parts import (
  NUMBERS,
  ImageParts,
  Unreadable,
  orientation_of,
  profile_name,
)

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274
_TILE_WIDTH, _TILE_HEIGHT, _XMP, _ICC = 322, 323, 700, 34675
# The tags that the pixels depend on. All others are metadata, some of which
# Pillow would interpret and refuse.
_KEPT_TAGS = {
  254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293,
  317, 320, 322, 323, 324, 325, 332, 338, 339, 347, 512, 513, 514, 515, 517,
  518, 519, 520, 521, 529, 530, 531, 532, 50674,
}  # fmt: skip
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 16: 8}
_MOST_TILE_PIXELS = 2**26
_CUT = 'the TIFF file is cut off or damaged'


class Layout(NamedTuple):
  """How a TIFF file writes numbers: classic TIFF, or BigTIFF."""

  order: str  # '<' or '>'
  count: str  # of the entries of a directory
  entry: str  # tag, type, number of values, value or offset
  offset: str

  def read(self, kind: str, data: bytes, at: int) -> Any:
    return struct.unpack_from(self.order + kind, data, at)


def split(data: bytes) -> ImageParts:
  """Returns a TIFF file that has its first page only, without metadata.

  Raises:
    Unreadable: the directory of the first page is not sound.
  """
  try:
    return _split(data)
  except (struct.error, OverflowError):
    raise Unreadable(_CUT) from None


def layout_of(data: bytes) -> tuple[Layout, int]:
  """Returns how a TIFF file writes numbers, and where its directory is.

  Raises:
    struct.error: the file ends before it says so.
  """
  order = '<' if data[:2] == b'II' else '>'
  big = data[2:4] in (b'+\0', b'\0+')
  layout = (
    Layout(order, 'Q', 'HHQ8s', 'Q')
    if big
    else Layout(order, 'H', 'HHI4s', 'I')
  )
  return layout, layout.read(layout.offset, data, 8 if big else 4)[0]


def _split(data):
  layout, start = layout_of(data)
  count = layout.read(layout.count, data, start)[0]
  first = start + struct.calcsize('<' + layout.count)
  step = struct.calcsize('<' + layout.entry)
  if first + count * step > len(data):
    raise Unreadable(_CUT)
  entries = [
    (at, *layout.read(layout.entry, data, at))
    for at in range(first, first + count * step, step)
  ]
  tags = {entry[1]: entry for entry in entries}
  following = layout.read(layout.offset, data, first + count * step)[0]
  return _parts(data, layout, entries, tags, first, step, following)


def _parts(data, layout, entries, tags, first, step, following):
  def number(tag, default):
    return (_numbers(data, layout, tags.get(tag)) or [default])[0]

  if number(_TILE_WIDTH, 1) * number(_TILE_HEIGHT, 1) > _MOST_TILE_PIXELS:
    raise Unreadable('the TIFF file has tiles of an absurd size')
  bits = number(_BITS, 1)
  icc = _bytes(data, layout, tags.get(_ICC))
  orientation = _orientation(data, layout, tags.get(_ORIENTATION))
  if not 1 <= orientation <= 8:
    orientation = orientation_of(None, _bytes(data, layout, tags.get(_XMP)))
  white_is_zero = number(_PHOTOMETRIC, 1) == 0
  return ImageParts(
    _stripped(data, layout, entries, first, step, white_is_zero and bits > 8),
    size=(number(_WIDTH, 0), number(_HEIGHT, 0)),
    orientation=orientation,
    profile=profile_name(icc) if icc else None,
    has_more=following != 0,
    white_is_zero=white_is_zero,
    bits=bits,
  )


def _orientation(data, layout, entry):
  """Returns the number of an entry, 0 if it is malformed or missing.

  The pixels do not depend on it, so it cannot make them unreadable.
  """
  try:
    return (_numbers(data, layout, entry) or [0])[0]
  except Unreadable:
    return 0


def _numbers(data, layout, entry):
  """Returns the whole numbers of an entry, at most eight, or None."""
  if entry is None or entry[2] not in NUMBERS:
    return None
  kind, count = NUMBERS[entry[2]], min(entry[3], 8)
  content = _bytes(data, layout, entry)
  if len(content) < count * struct.calcsize('<' + kind):
    raise Unreadable(_CUT)
  return layout.read(f'{count}{kind}', content, 0)


def _bytes(data, layout, entry):
  """Returns the content of an entry, as far as the file has it."""
  if entry is None or entry[2] not in _SIZES:
    return b''
  _, _, kind, count, value = entry
  length = _SIZES[kind] * count
  if length <= len(value):
    return value[:length]
  at = layout.read(layout.offset, value, 0)[0]
  return data[at : at + length]


def _stripped(data, layout, entries, first, step, not_inverted):
  """Returns the file with the kept entries only, and without a next page.

  If not_inverted, the file states that zero is black; Pillow does not invert
  deep samples, and knows only some kinds of those that are inverted.
  """
  offset = struct.calcsize('<' + layout.offset)
  kept = [entry[0] for entry in entries if entry[1] in _KEPT_TAGS]
  body = b''.join(data[at : at + step] for at in kept)
  if not_inverted:
    head = struct.pack(layout.order + 'HH', _PHOTOMETRIC, 3)
    one = struct.pack(layout.order + 'H', 1)
    body = b''.join(
      entry[:-offset] + one.ljust(offset, b'\0')
      if entry.startswith(head)
      else entry
      for entry in (body[i : i + step] for i in range(0, len(body), step))
    )
  # The new directory is shorter or equal, so it fits into the old one's place.
  directory = (
    struct.pack(layout.order + layout.count, len(kept)) + body + bytes(offset)
  )
  start = first - struct.calcsize('<' + layout.count)
  return b''.join([data[:start], directory, data[start + len(directory) :]])
