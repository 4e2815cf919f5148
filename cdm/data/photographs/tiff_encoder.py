"""Writes a TIFF file strip by strip, as BigTIFF where 4 GB are not enough.

The EXIF block, which is a TIFF structure, becomes the beginning of the file, so
that every offset in it stays right, those in the notes of camera makers too.
"""

import struct
import zlib
from typing import IO

import numpy as np

from cdm.data.photographs import (
  exif_block,
  ordered_work,
  output_limits,
  row_groups,
  tiff_directory,
  tiff_metadata,
)
from cdm.data.photographs.carried_metadata import Carried
from cdm.data.photographs.output_kinds import Layout, by_name
from cdm.data.photographs.tiff_directory import Directory, Value

_STRIP_BYTES = 2**19
_DEFLATE, _DIFFERENCES = 8, 2
CLASSIC_BYTES = 2**32 - 2**25  # room for directories and metadata


class TiffEncoder:
  """Writes rows to an open file; see `picture_writer`."""

  def __init__(
    self, file: IO[bytes], layout: Layout, carried: Carried, level: int
  ):
    self._file, self._layout, self._carried = file, layout, carried
    self._level = level
    exif = carried.exif
    self._big = (
      output_limits.needed_bytes(by_name('TIFF'), layout) > CLASSIC_BYTES
    )
    self._order = '<'
    if exif and not self._big:
      self._order = exif_block.order_of(exif)
    self._rows = max(1, _STRIP_BYTES // layout.row_bytes)
    self._groups = row_groups.RowGroups(self._rows)
    self._offsets: list[int] = []
    self._lengths: list[int] = []
    self._work = ordered_work.OrderedWork(self._accept)
    self._pointers: Directory = {}
    file.write(self._beginning(exif))

  def write(self, rows: np.ndarray) -> None:
    """Writes [N, W, C] rows of uint8 or uint16."""
    for group in self._groups.take(rows):
      self._submit(group)

  def finish(self) -> None:
    """Writes the directory, and where it is."""
    for group in self._groups.rest():
      self._submit(group)
    self._work.finish()
    at = self._file.tell()
    at += at % 2
    self._file.seek(at)
    body, start = tiff_directory.pack(
      self._directory(), order=self._order, at=at, big=self._big
    )
    self._file.write(body)
    self._file.seek(8 if self._big else 4)
    kind = 'Q' if self._big else 'I'
    self._file.write(struct.pack(self._order + kind, start))

  def close(self) -> None:
    """Ends the threads."""
    self._work.close()

  def _beginning(self, exif):
    """Returns the head of the file, with the EXIF block if there is one."""
    mark = b'II' if self._order == '<' else b'MM'
    if self._big:
      head = mark + struct.pack(self._order + 'HHHQ', 43, 8, 0, 0)
      if not exif:
        return head
      further, self._pointers = tiff_metadata.repacked(exif, at=len(head))
      return head + further
    if not exif:
      return mark + struct.pack(self._order + 'HI', 42, 0)
    self._pointers = tiff_metadata.pointers_of_block(exif)
    return exif + bytes(len(exif) % 2)

  def _submit(self, rows):
    self._work.submit(_deflated, rows, self._order, self._level)

  def _accept(self, strip):
    self._offsets.append(self._file.tell())
    self._lengths.append(len(strip))
    self._file.write(strip)

  def _directory(self) -> Directory:
    layout, order, carried = self._layout, self._order, self._carried

    def many(kind, numbers):
      letter = {3: 'H', 4: 'I', 16: 'Q'}[kind]
      packed = struct.pack(f'{order}{len(numbers)}{letter}', *numbers)
      return Value(kind, len(numbers), packed)

    def short(number):
      return many(3, [number])

    places = 16 if self._big else 4
    about = tiff_metadata.of_block(carried.exif, order) if carried.exif else {}
    entries = {
      **about,
      **self._pointers,
      **tiff_metadata.resolution_entries(carried.resolution, order),
      256: many(4, [layout.width]),
      257: many(4, [layout.height]),
      258: many(3, [layout.bits] * layout.channels),
      259: short(_DEFLATE),
      262: short(1 if layout.channels < 3 else 2),
      273: many(places, self._offsets),
      274: short(1),
      277: short(layout.channels),
      278: many(4, [self._rows]),
      279: many(places, self._lengths),
      284: short(1),
      317: short(_DIFFERENCES),
    }
    if layout.has_alpha:
      entries[338] = short(2)  # not multiplied into the colours
    for tag, kind, block in (
      (700, 1, carried.xmp),
      (33723, 7, carried.iptc),
      (34675, 7, carried.icc),
    ):
      if block:
        entries[tag] = Value(kind, len(block), block)
    return entries


def _deflated(rows, order, level):
  """Returns a strip of differences between neighbours, compressed."""
  differences = rows.copy()
  differences[:, 1:] -= rows[:, :-1]
  if rows.dtype == np.uint16:
    differences = differences.astype(order + 'u2')
  return zlib.compress(differences.data, level)
