"""Writes a baseline JPEG file stripe by stripe.

A restart marker after each row of blocks makes the rows independent, so
stripes of eight such rows are compressed one by one, by several threads, with
equal tables, and put together: their bytes are those of one compression of the
whole picture.
"""

import io
import struct
from typing import IO, Any

import numpy as np
from PIL import Image

from cdm.data import jpeg_segments
from cdm.data.photographs import ordered_work, row_groups
from cdm.data.photographs.carried_metadata import Carried
from cdm.data.photographs.output_kinds import Layout

_MOST = 65533  # bytes of a segment's content
_RESTARTS = 8  # Restart markers are numbered from 0 to 7, again and again.
_BETWEEN = b'\xff\xd7'
_FRAME, _SCAN, _JFIF = 0xC0, 0xDA, 0xE0
SUBSAMPLINGS = {'4:4:4': 8, '4:2:0': 16}  # {name: rows of a row of blocks}


class JpegEncoder:
  """Writes rows to an open file; see `picture_writer`."""

  def __init__(
    self,
    file: IO[bytes],
    layout: Layout,
    carried: Carried,
    quality: int,
    subsampling: str = '4:4:4',
  ):
    self._file, self._layout, self._carried = file, layout, carried
    self._options: dict[str, Any] = {
      'quality': quality,
      'restart_marker_rows': 1,
    }
    rows = 8
    if layout.channels == 3:
      self._options['subsampling'] = subsampling
      rows = SUBSAMPLINGS[subsampling]
    self._groups = row_groups.RowGroups(rows * _RESTARTS)
    self._has_begun = False
    self._work = ordered_work.OrderedWork(self._accept)

  def write(self, rows: np.ndarray) -> None:
    """Writes [N, W, C] rows of uint8."""
    for group in self._groups.take(rows):
      self._submit(group)

  def finish(self) -> None:
    """Writes the end of the file."""
    for group in self._groups.rest():
      self._submit(group)
    self._work.finish()
    self._file.write(b'\xff\xd9')

  def close(self) -> None:
    """Ends the threads."""
    self._work.close()

  def _submit(self, rows):
    self._work.submit(_compressed, rows, self._options)

  def _accept(self, stripe):
    """Writes a stripe, before the first one the header."""
    start, end = next(
      (start, end)
      for marker, start, end in jpeg_segments.segments(stripe)
      if marker == _SCAN
    )
    if not self._has_begun:
      self._has_begun = True
      self._file.write(b'\xff\xd8' + metadata_segments(self._carried))
      self._file.write(self._tables(stripe))
      self._file.write(stripe[start:end])
    else:
      self._file.write(_BETWEEN)
    self._file.write(stripe[end:-2])

  def _tables(self, stripe):
    """Returns the segments between the metadata and the pixels."""
    kept = b''
    for marker, start, end in jpeg_segments.segments(stripe):
      segment = stripe[start:end]
      if marker == _FRAME:
        height = struct.pack('>H', self._layout.height)
        segment = segment[:5] + height + segment[7:]
      if marker not in (_JFIF, _SCAN):
        kept += segment
    return kept


def _compressed(rows, options):
  file = io.BytesIO()
  image = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)
  image.save(file, 'JPEG', **options)
  return file.getvalue()


def metadata_segments(carried: Carried) -> bytes:
  """Returns the segments of the metadata; see `too_long` for what has none."""
  unit, x, y = 0, 1, 1
  if carried.resolution is not None:
    unit = {'inch': 1, 'cm': 2}[carried.resolution.unit]
    numbers = carried.resolution.x, carried.resolution.y
    if unit == 2 and any(number.denominator != 1 for number in numbers):
      unit, numbers = 1, carried.resolution.per('inch')
    x, y = (min(max(round(number), 1), 65535) for number in numbers)
  segments = [
    _segment(_JFIF, b'JFIF\0\1\1' + struct.pack('>BHHH', unit, x, y, 0))
  ]
  for marker, content in _blocks(carried).values():
    if len(content) <= _MOST:
      segments.append(_segment(marker, content))
  segments += _profile(carried.icc or b'')
  return b''.join(segments)


def too_long(carried: Carried) -> tuple[str, ...]:
  """Returns the names of the blocks that are too long for a JPEG file."""
  blocks = _blocks(carried)
  return tuple(name for name in blocks if len(blocks[name][1]) > _MOST)


def _blocks(carried):
  """Returns {name: (marker, content)} of the blocks of one segment each."""
  blocks = {}
  if carried.exif:
    blocks['EXIF'] = 0xE1, b'Exif\0\0' + carried.exif
  if carried.xmp:
    blocks['XMP'] = 0xE1, jpeg_segments.XMP + carried.xmp
  if carried.iptc:
    head = struct.pack('>4sHHI', b'8BIM', 0x0404, 0, len(carried.iptc))
    padded = carried.iptc + bytes(len(carried.iptc) % 2)
    blocks['IPTC'] = 0xED, b'Photoshop 3.0\0' + head + padded
  if carried.comment:
    blocks['comment'] = 0xFE, carried.comment
  return blocks


def _profile(icc):
  size = _MOST - 14
  count = -(-len(icc) // size)
  return [
    _segment(
      0xE2,
      b'ICC_PROFILE\0' + bytes([i + 1, count]) + icc[i * size : (i + 1) * size],
    )
    for i in range(count)
  ]


def _segment(marker, content):
  return struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content
