"""Changes in an EXIF block what an enlarged and upright picture changes.

An EXIF block is a TIFF structure whose offsets count from its beginning. Notes
of camera makers hold such offsets too, in ways that only the makers know. So
nothing is ever moved: values are changed in their place, and what is new comes
at the end of the block.
"""

import struct
from typing import NamedTuple

_ORIENTATION, _SOFTWARE, _EXIF = 0x0112, 0x0131, 0x8769
_WIDTH, _HEIGHT = (0x0100, 0xA002), (0x0101, 0xA003)
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_SHORT, _LONG, _ASCII = 3, 4, 2
_MOST_ENTRIES = 1000


class Entry(NamedTuple):
  """An entry of a directory: twelve bytes.

  Attributes:
    tag, kind, count: see the TIFF specification.
    value: four bytes, the value or the offset of it.
  """

  tag: int
  kind: int
  count: int
  value: bytes


def order_of(block: bytes | bytearray) -> str:
  """Returns the byte order of a block, '<' or '>'.

  Raises:
    ValueError: it is no EXIF block.
  """
  order = {b'II*\0': '<', b'MM\0*': '>'}.get(bytes(block[:4]))
  if order is None:
    raise ValueError('It is no EXIF block.')
  return order


def first_directory(block: bytes | bytearray) -> list[Entry]:
  """Returns the entries of the first directory, which is about the picture.

  Raises:
    ValueError: it is no EXIF block, or is cut off.
  """
  order = order_of(block)
  try:
    start = struct.unpack_from(order + 'I', block, 4)[0]
    return _directory(block, order, start)[0]
  except struct.error as error:
    raise ValueError('The EXIF block is cut off.') from error


def is_sound(block: bytes) -> bool:
  """Whether the first directory of a block can be read."""
  try:
    first_directory(block)
  except ValueError:
    return False
  return True


def updated(
  block: bytes, width: int, height: int, software: str | None
) -> bytes:
  """Returns the block of an upright picture of another size.

  Args:
    block: the block of the original, a sound one.
    width: of the new picture, pixels.
    height: of the new picture, pixels.
    software: added to the software that the block names; None adds nothing.
  """
  order, changed = order_of(block), bytearray(block)
  start = struct.unpack_from(order + 'I', block, 4)[0]
  entries, end = _directory(changed, order, start)
  _drop_thumbnail(changed, order, end)
  new = _resized(entries, order, width, height)
  new = [
    Entry(_ORIENTATION, _SHORT, 1, struct.pack(order + 'HH', 1, 0))
    if entry.tag == _ORIENTATION
    else entry
    for entry in new
  ]
  for entry in entries:
    if entry.tag == _EXIF:
      _resize_directory(changed, order, entry, width, height)
  if software is not None:
    new = _with_software(changed, order, new, software)
  body = _packed(new, order)
  if len(new) > len(entries):  # It has no room in the old place.
    start = _append(changed, body)
    struct.pack_into(order + 'I', changed, 4, start)
  else:
    changed[start : start + len(body)] = body
  return bytes(changed)


def _directory(block, order, start):
  """Returns (entries, position of the offset of the next directory)."""
  count = struct.unpack_from(order + 'H', block, start)[0]
  if count > _MOST_ENTRIES:
    raise struct.error('more entries than any camera writes')
  first, end = start + 2, start + 2 + 12 * count
  struct.unpack_from(order + 'I', block, end)  # It is whole.
  return [
    Entry(*struct.unpack_from(order + 'HHI4s', block, at))
    for at in range(first, end, 12)
  ], end


def _packed(entries, order):
  """Returns a directory without a successor."""
  return b''.join(
    [
      struct.pack(order + 'H', len(entries)),
      *(struct.pack(order + 'HHI4s', *entry) for entry in entries),
      bytes(4),
    ]
  )


def _append(block, content):
  """Appends content at an even offset, and returns that."""
  block += bytes(len(block) % 2)
  at = len(block)
  block += content
  return at


def _resized(entries, order, width, height):
  sizes = dict.fromkeys(_WIDTH, width) | dict.fromkeys(_HEIGHT, height)
  return [
    entry._replace(kind=_LONG, value=struct.pack(order + 'I', sizes[entry.tag]))
    if entry.tag in sizes and entry.count == 1
    else entry
    for entry in entries
  ]


def _resize_directory(block, order, pointer, width, height):
  """Changes the size in the directory that a pointer leads to."""
  start = struct.unpack(order + 'I', pointer.value)[0]
  try:
    entries, end = _directory(block, order, start)
  except struct.error:  # Readers will not find it either.
    return
  body = _packed(_resized(entries, order, width, height), order)
  block[start:end] = body[:-4]


def _drop_thumbnail(block, order, end):
  """Erases the thumbnail in the second directory, and its successors."""
  start = struct.unpack_from(order + 'I', block, end)[0]
  struct.pack_into(order + 'I', block, end, 0)
  if not start:
    return
  try:
    entries = {e.tag: e.value for e in _directory(block, order, start)[0]}
    at, count = (
      struct.unpack(order + 'I', entries[tag])[0]
      for tag in (_THUMBNAIL, _THUMBNAIL_BYTES)
    )
  except (struct.error, KeyError):
    return
  if block[at : at + 3] != b'\xff\xd8\xff':
    return
  if at > end and at + count >= len(block) - 1:
    del block[at:]
  else:
    count = min(count, len(block) - at)
    block[at : at + count] = bytes(count)


def _with_software(block, order, entries, software):
  """Returns the entries with the software, whose text is appended."""
  text, others = software.encode('ascii', 'replace'), []
  for entry in entries:
    if entry.tag == _SOFTWARE and entry.kind == _ASCII:
      former = _text(block, order, entry)
      text = former + b'; ' + text if former else text
    elif entry.tag != _SOFTWARE:
      others.append(entry)
  text += b'\0'
  value = text.ljust(4, b'\0')
  if len(text) > 4:  # Four bytes stand in the entry itself.
    value = struct.pack(order + 'I', _append(block, text))
  new = Entry(_SOFTWARE, _ASCII, len(text), value)
  return sorted([*others, new], key=lambda entry: entry.tag)


def _text(block, order, entry):
  if entry.count <= 4:
    return entry.value[: entry.count].rstrip(b'\0 ')
  at = struct.unpack(order + 'I', entry.value)[0]
  return bytes(block[at : at + min(entry.count, 1000)]).rstrip(b'\0 ')
