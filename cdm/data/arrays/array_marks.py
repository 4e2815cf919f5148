"""Marks the arrays that are written, so that a later start knows them again.

A .npy or TIFF file has its mark at its end, as `photographs.marks` puts it; a
FITS file, of whole blocks, has it in its header.
"""

import pathlib

from cdm.data.arrays import fits_file
from cdm.data.photographs import marks


def append(path: pathlib.Path, kind: str, mark: str) -> None:
  """Adds a mark to a file that is written, unless its header has it.

  Args:
    path: of the file.
    kind: 'NPY', 'TIFF' or 'FITS'.
    mark: ASCII text.
  """
  if kind != 'FITS':
    marks.append(path, kind, mark)


def has(path: pathlib.Path, kind: str, mark: str) -> bool:
  """Returns whether a file is there, whole, and has this mark."""
  if kind != 'FITS':
    return marks.has(path, mark)
  return path.is_file() and fits_file.has_mark(path, mark)
