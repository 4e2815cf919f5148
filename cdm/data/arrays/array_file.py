"""Reads an array file by bands of rows, so that none needs to be in memory."""

import contextlib
import os
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from cdm.data.arrays.array_layout import Layout


class ArrayFile(NamedTuple):
  """An array file that is open.

  Attributes:
    layout: what it holds.
    read_plane: `(index along the axes before H, first row, last row + 1) ->
      [n, W] or [n, W, C]`, stored numbers.
    close: closes the file.
    notes: what of the file is not read, as clauses.
  """

  layout: Layout
  read_plane: Callable[[tuple[int, ...], int, int], np.ndarray]
  close: Callable[[], object]
  notes: tuple[str, ...] = ()

  def rows(self, page: int, first: int, last: int) -> np.ndarray:
    """Returns rows of a page, stored numbers [n, W, C].

    Args:
      page: number of the page.
      first, last: the rows [first, last).
    """
    layout = self.layout
    shape = (last - first, layout.width, layout.interleaved)
    if layout.interleaved == layout.channels:
      found = self.read_plane(layout.plane(page, 0), first, last)
      return found.reshape(shape)
    parts = [
      self.read_plane(layout.plane(page, c), first, last).reshape(shape)
      for c in range(layout.channels)
    ]
    return np.concatenate(parts, axis=-1)


def raw_reader(
  file: str | os.PathLike[str], offset: int, layout: Layout
) -> tuple[Callable[[tuple[int, ...], int, int], np.ndarray], Callable]:
  """Returns (`ArrayFile.read_plane`, `close`) of numbers that lie in C order.

  Rows are read, not mapped: pages of a map would count as memory of the
  process, and a file that became shorter would end it.

  Args:
    file: path of the file.
    offset: where the numbers begin.
    layout: what they are.
  """
  opened = open(file, 'rb')  # noqa: SIM115
  row = layout.width * layout.interleaved

  def read_plane(index, first, last):
    place = (layout.plane_number(index) * layout.height + first) * row
    opened.seek(offset + place * layout.dtype.itemsize)
    count = (last - first) * row
    data = opened.read(count * layout.dtype.itemsize)
    if len(data) != count * layout.dtype.itemsize:
      raise ValueError('the file is cut off')
    return np.frombuffer(data, layout.dtype)

  return read_plane, opened.close


@contextlib.contextmanager
def closing(file: ArrayFile) -> Generator[ArrayFile]:
  """Context manager that closes an array file at its end."""
  try:
    yield file
  finally:
    file.close()
