"""Writes a BMP file row band by row band; its rows run from the bottom up."""

import struct
from typing import IO

import numpy as np

from cdm.data.photographs.carried_metadata import Carried
from cdm.data.photographs.output_kinds import Layout


class BmpEncoder:
  """Writes rows to an open file; see `picture_writer`."""

  def __init__(self, file: IO[bytes], layout: Layout, carried: Carried):
    self._file = file
    self._row_bytes = -(-layout.row_bytes // 4) * 4
    grey = np.arange(256, dtype=np.uint8)[:, None] * np.array(
      [1, 1, 1, 0], np.uint8
    )
    palette = grey.tobytes() if layout.channels == 1 else b''
    self._start = 54 + len(palette)
    size = self._start + layout.height * self._row_bytes
    x = y = 0
    if carried.resolution is not None:
      x, y = (round(100 * number) for number in carried.resolution.per('cm'))
    file.write(struct.pack('<2sIII', b'BM', size, 0, self._start))
    file.write(
      struct.pack(
        '<IiiHHIIiiII',
        40, layout.width, layout.height, 1, 8 * layout.channels, 0,
        layout.height * self._row_bytes, x, y, len(palette) // 4, 0,
      )
    )  # fmt: skip
    file.write(palette)
    self._left = layout.height

  def write(self, rows: np.ndarray) -> None:
    """Writes [N, W, C] rows of uint8."""
    stored = rows[::-1, :, ::-1].reshape(len(rows), -1)  # blue comes first
    padded = np.zeros((len(rows), self._row_bytes), np.uint8)
    padded[:, : stored.shape[1]] = stored
    self._left -= len(rows)
    self._file.seek(self._start + self._left * self._row_bytes)
    self._file.write(padded.data)

  def finish(self) -> None:
    """Does nothing: the file is complete."""

  def close(self) -> None:
    """Does nothing: there are no threads."""
