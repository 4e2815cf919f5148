"""Writes an array file by bands of rows of its pages and channels.

The numbers go to an unfinished file of their full size, which is renamed when
it is whole; an error or Ctrl-C leaves nothing behind.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Generator
from typing import IO

import numpy as np

from cdm.data.arrays import array_marks, fits_file, npy_file, tiff_file
from cdm.data.arrays.array_layout import Layout
from cdm.data.files import atomic_files


class Writer:
  """Takes rows of pages and channels, in any order."""

  def __init__(self, file: IO[bytes], offset: int, layout: Layout):
    """Takes what `open_writer` has begun.

    Args:
      file: is open for reading and writing.
      offset: where its numbers begin.
      layout: what it holds.
    """
    self._file, self._offset, self._layout = file, offset, layout
    self._written = 0

  def write(
    self, page: int, channels: slice, first: int, rows: np.ndarray
  ) -> None:
    """Writes rows of some channels of a page.

    Args:
      page: number of the page.
      channels: of the page.
      first: number of the first row.
      rows: stored numbers [n, W, C] of these channels, each written once.
    """
    layout = self._layout
    rows = rows.astype(layout.dtype, copy=False)
    self._written += rows.size
    if layout.interleaved == 1:
      for i, c in enumerate(range(*channels.indices(layout.channels))):
        self._seek(page, c, first)
        self._file.write(np.ascontiguousarray(rows[..., i]).data)
      return
    self._seek(page, 0, first)
    if rows.shape[-1] < layout.channels:
      # The other channels are there already, or will be.
      shape = *rows.shape[:2], layout.channels
      size = int(np.prod(shape)) * layout.dtype.itemsize
      whole = np.frombuffer(bytearray(self._file.read(size)), layout.dtype)
      whole = whole.reshape(shape)
      whole[..., channels] = rows
      rows = whole
      self._seek(page, 0, first)
    self._file.write(np.ascontiguousarray(rows).data)

  def _seek(self, page, channel, first):
    layout = self._layout
    number = layout.plane_number(layout.plane(page, channel))
    row = layout.width * layout.interleaved * layout.dtype.itemsize
    self._file.seek(self._offset + (number * layout.height + first) * row)

  def finish(self) -> None:
    """Raises ValueError unless every number was written."""
    expected = int(np.prod(self._layout.shape))
    if self._written != expected:
      raise ValueError(
        f'Only {self._written:,} of {expected:,} numbers were written.'
      )


def check_space(layout: Layout, folder: str | os.PathLike[str]) -> None:
  """Raises ValueError if the disk of a folder has no room for an array."""
  needed, free = layout.nbytes, shutil.disk_usage(folder).free
  if needed > free:
    raise ValueError(
      f'the result takes {needed:,} bytes, and the disk of '
      f'{os.fspath(folder)!r} has {free:,} left; free some space, or write to '
      'another disk'
    )


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike[str],
  layout: Layout,
  *,
  source: str | os.PathLike[str],
  mark: str,
  software: str,
) -> Generator[Writer]:
  """Context manager that yields a `Writer`; the file appears at its end.

  Args:
    path: of the file, in a folder that exists. An older file is replaced.
    layout: what it will hold.
    source: the file that was enlarged, whose header is kept.
    mark: what the file is known by again, see `array_marks`.
    software: what makes the file.

  Raises:
    ValueError: numbers are missing.
    OSError: the file cannot be written.
  """
  path = pathlib.Path(path)
  with atomic_files.write_atomically(path) as partial:
    if layout.kind == 'NPY':
      offset = npy_file.begin(partial, layout)
    elif layout.kind == 'TIFF':
      offset = tiff_file.begin(partial, layout, source, software=software)
    else:
      offset = fits_file.begin(
        partial, layout, source, software=software, mark=mark
      )
    size = max(offset + layout.nbytes, partial.stat().st_size)
    if layout.kind == 'FITS':
      size = fits_file.padded_size(offset, layout)
    with open(partial, 'r+b') as file:
      file.truncate(size)
      writer = Writer(file, offset, layout)
      yield writer
      writer.finish()
    array_marks.append(partial, layout.kind, mark)
