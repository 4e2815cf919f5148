"""Estimates the quality that a JPEG file was written with."""

import struct

import numpy as np

from cdm.data import jpeg_segments

_TABLES = 0xDB
# The quantization table of luminance of ITU-T T.81, annex K.1, in zigzag order.
_STANDARD = np.array(
  [
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
    26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
    56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
  ]
)  # fmt: skip


def estimate(data: bytes) -> int | None:
  """Returns the quality, 1 to 100, of a JPEG file; None if it has no tables.

  The Independent JPEG Group's library scales the standard tables by
  5000 / quality per cent below 50, and by 200 - 2 quality from there on. Files
  with tables scaled so, which most programs write, get back their quality;
  others get the quality whose table is nearest.
  """
  table = _luminance(data)
  return None if table is None else of_table(table)


def of_table(table: np.ndarray) -> int:
  """Returns the quality of a quantization table of luminance; see `estimate`.

  Args:
    table: [64], in zigzag order.
  """
  qualities = np.arange(1, 101)[:, None]
  percent = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
  tables = np.clip((_STANDARD * percent + 50) // 100, 1, 255)
  distance = np.abs(np.log(tables / np.maximum(table, 1))).sum(axis=1)
  return int(qualities[distance.argmin(), 0])


def zigzag(table: np.ndarray) -> np.ndarray:
  """Returns a table of 8 rows, [64], in the zigzag order of JPEG.

  Args:
    table: [64], row after row, as Pillow has it.
  """
  places = np.arange(64)
  row, column = places // 8, places % 8
  diagonal = row + column
  # Every other diagonal is walked upwards.
  along = np.where(diagonal % 2, row, column)
  return np.asarray(table)[np.lexsort((along, diagonal))]


def _luminance(data):
  """Returns the first quantization table, int64 [64] in zigzag order."""
  for marker, start, end in jpeg_segments.segments(data):
    if marker == _TABLES:
      body = data[start + 4 : end]
      deep = body[:1] > b'\x0f'
      try:
        values = struct.unpack_from('>64H' if deep else '>64B', body, 1)
      except struct.error:
        return None
      return np.array(values)
  return None
