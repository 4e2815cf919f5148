"""Reads the array of an .npz archive, as `np.savez` writes it."""

import os

from cdm.data import npz_arrays
from cdm.data.arrays import array_file, array_layout, npy_file
from cdm.data.arrays.array_layout import Layout

_FIRST = 'arr_0'


def open_file(
  path: str | os.PathLike[str], axes: str | None
) -> array_file.ArrayFile:
  """Opens the array `arr_0` of an archive, or its only one.

  Args:
    path: the archive.
    axes: see `array_layout.with_axes`.

  Raises:
    ValueError: it cannot be used; the message names it.
  """
  with npz_arrays.opened(path) as archive:
    names = npz_arrays.names(archive)
    name = names[0] if len(names) == 1 else _FIRST
    if name not in names:
      raise npz_arrays.UnexpectedContent(
        f'{path} has the arrays {names} but no {_FIRST}; give one array of '
        'images there.'
      )
    shape, dtype, fortran, begin = npz_arrays.read_header(archive, name)
    own = axes or npy_file.AXES.get(len(shape))
    if own is None or fortran:
      raise npz_arrays.UnexpectedContent(
        f'{name} of {path} is {list(shape)}'
        f'{" in Fortran order" if fortran else ""}; [N, H, W, C] was expected.'
      )
    try:
      layout = Layout('NPY', shape, own, dtype)
      layout = array_layout.with_axes(layout, axes)
      array_layout.check(layout)
    except ValueError as error:
      raise npz_arrays.UnexpectedContent(f'{path}: {error}.') from error
    member = archive.getinfo(f'{name}.npy')
    if member.compress_type == 0:
      offset = npz_arrays.data_offset(archive, name) + begin
      read, close = array_file.raw_reader(path, offset, layout)
      return array_file.ArrayFile(layout, read, close)
    whole = npz_arrays.read_array(archive, name)

  def read_plane(index, first, last):
    return whole[(*index, slice(first, last))]

  return array_file.ArrayFile(layout, read_plane, lambda: None)
