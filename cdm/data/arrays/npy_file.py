"""Reads and writes `.npy` files, the arrays of NumPy."""

import os
import pathlib

import numpy as np

from cdm.data.arrays import array_file, array_layout
from cdm.data.arrays.array_layout import Layout

MAGIC = b'\x93NUMPY'
AXES = {2: 'HW', 3: 'HWC', 4: 'PHWC'}  # of arrays that do not say theirs


def open_file(
  path: str | os.PathLike[str], axes: str | None
) -> array_file.ArrayFile:
  """Opens a file; nothing is ever unpickled.

  Args:
    path: the file.
    axes: see `array_layout.with_axes`.

  Raises:
    ValueError: it cannot be used; the message is a clause.
  """
  with open(path, 'rb') as file:
    try:
      version = np.lib.format.read_magic(file)
      read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
      }[version]
      shape, fortran, dtype = read(file)
    except (ValueError, KeyError) as error:
      raise ValueError('the head of the .npy file is damaged') from error
    offset = file.tell()
  own = AXES.get(len(shape))
  if own is None and axes is None:
    raise ValueError(
      f'the array is {list(shape)}; [H, W], [H, W, C] or [P, H, W, C] was '
      'expected. Name its axes with --axes'
    )
  layout = Layout('NPY', shape, own or axes or '', dtype)
  layout = array_layout.with_axes(layout, axes)
  array_layout.check(layout)
  if offset + layout.nbytes > os.path.getsize(path):
    raise ValueError('the file is cut off')
  if not fortran:
    read_plane, close = array_file.raw_reader(path, offset, layout)
    return array_file.ArrayFile(layout, read_plane, close)
  # Rows do not lie in one piece.
  mapped = np.memmap(path, dtype, 'r', offset, shape, 'F')

  def read_mapped(index, first, last):
    return np.array(mapped[(*index, slice(first, last))])

  return array_file.ArrayFile(layout, read_mapped, lambda: None)


def begin(path: pathlib.Path, layout: Layout) -> int:
  """Writes the head of a file; returns where its numbers begin.

  Args:
    path: an empty file.
    layout: what it will hold.
  """
  with open(path, 'wb') as file:
    np.lib.format.write_array_header_1_0(
      file,
      {
        'descr': np.lib.format.dtype_to_descr(layout.dtype),
        'fortran_order': False,
        'shape': layout.shape,
      },
    )
    return file.tell()
