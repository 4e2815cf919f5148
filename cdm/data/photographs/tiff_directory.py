"""Reads directories of TIFF files and EXIF blocks, and writes new ones.

Values stay bytes in the byte order of their file.
"""

import struct
from typing import NamedTuple

import numpy as np

from cdm.data import tiff_tags

# Bytes of a value, by type.
_SIZES = {
  1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
  13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip
_MOST_ENTRIES = 1000
_LONG, _LONG_8 = 4, 16
_FRACTIONS = (5, 10)


class Value(NamedTuple):
  """The value of an entry.

  Attributes:
    kind: its type by the TIFF specification.
    count: the number of items.
    data: their bytes.
  """

  kind: int
  count: int
  data: bytes


Directory = dict[int, 'Value']


def read(data: bytes, layout: tiff_tags.Layout, start: int) -> Directory:
  """Returns the entries of a directory whose values the data has whole.

  Raises:
    struct.error: the directory is cut off.
  """
  count = layout.read(layout.count, data, start)[0]
  if count > _MOST_ENTRIES:
    raise struct.error('more entries than any program writes')
  at = start + struct.calcsize('<' + layout.count)
  step = struct.calcsize('<' + layout.entry)
  found = {}
  for i in range(count):
    tag, kind, items, value = layout.read(layout.entry, data, at + i * step)
    length = _SIZES.get(kind, 0) * items
    if length > len(value):
      place = layout.read(layout.offset, value, 0)[0]
      value = data[place : place + length]
    if 0 < length <= len(value):
      found.setdefault(tag, Value(kind, items, bytes(value[:length])))
  return found


def number(directory: Directory, tag: int, order: str) -> int | None:
  """Returns the first whole number of an entry, or None."""
  value = directory.get(tag)
  kind = {1: 'B', 3: 'H', 4: 'I', 13: 'I', 16: 'Q', 18: 'Q'}.get(
    value.kind if value else 0
  )
  if value is None or kind is None:
    return None
  return struct.unpack_from(order + kind, value.data)[0]


def ordered(entries: Directory, former: str, order: str) -> Directory:
  """Returns entries with their values in another byte order.

  Args:
    entries: what a directory holds.
    former: their byte order, '<' or '>'.
    order: the wanted one.
  """
  if former == order:
    return entries
  return {
    tag: value._replace(data=_swapped(value)) for tag, value in entries.items()
  }


def _swapped(value):
  # A fraction is two numbers of four bytes.
  size = 4 if value.kind in _FRACTIONS else _SIZES[value.kind]
  return np.frombuffer(value.data, f'u{size}').byteswap().tobytes()


def pack(
  entries: Directory, *, order: str, at: int, big: bool = False
) -> tuple[bytes, int]:
  """Returns a directory with the values that it leads to.

  Args:
    entries: what it holds.
    order: '<' or '>'.
    at: where it will be, an even offset.
    big: whether it is one of BigTIFF.

  Returns:
    (bytes, offset of its first byte): the values come first.
  """
  room, count, offset = (8, 'Q', 'Q') if big else (4, 'H', 'I')
  values, body = b'', b''
  for tag in sorted(entries):
    kind, items, data = entries[tag]
    if len(data) > room:
      place = at + len(values)
      values += data + bytes(len(data) % 2)
      data = struct.pack(order + offset, place)
    body += struct.pack(f'{order}HH{offset}', tag, kind, items)
    body += data.ljust(room, b'\0')
  head = struct.pack(order + count, len(entries))
  return values + head + body + bytes(room), at + len(values)


def pointer(at: int, *, order: str, big: bool = False) -> Value:
  """Returns the value of an entry that leads to another directory."""
  if big:
    return Value(_LONG_8, 1, struct.pack(order + 'Q', at))
  return Value(_LONG, 1, struct.pack(order + 'I', at))
