"""Tells arrays of measured values from pictures, and opens them."""

import os
import pathlib

from cdm.data import image_decoder
from cdm.data.arrays import array_file, fits_file, npy_file, tiff_file
from cdm.data.photographs import extra_kinds
from cdm.data.printable_name import printable

# The names that are looked for in folders, beside those of pictures.
SUFFIXES = ('.npy', '.fits', '.fit', '.fts', '.fits.gz', '.fits.fz')
TIFF_SUFFIXES = ('.tif', '.tiff')
# What a result of each kind may be called; the first is the usual name.
_WRITTEN = {
  'NPY': ('.npy',),
  'TIFF': TIFF_SUFFIXES,
  'FITS': ('.fits', '.fit', '.fts'),
}
_HEAD_BYTES = 2**16
_GZIP = b'\x1f\x8b'
_OPEN = {
  'NPY': npy_file.open_file,
  'TIFF': tiff_file.open_file,
  'FITS': fits_file.open_file,
}


def kind_of(
  path: str | os.PathLike[str], *, every_tiff: bool = False
) -> str | None:
  """Returns 'NPY', 'TIFF' or 'FITS'; None if a file is none or a picture.

  The kind is found in the first bytes.

  Args:
    path: the file.
    every_tiff: whether TIFF files that are photographs count as arrays too.
  """
  if not os.path.isfile(path):  # A pipe would be waited for.
    return None
  try:
    with open(path, 'rb') as file:
      data = file.read(_HEAD_BYTES)
  except OSError:
    return None  # It is named when it is read.
  if data.startswith(npy_file.MAGIC):
    return 'NPY'
  if data.startswith(fits_file.MAGIC):
    return 'FITS'
  zipped = data.startswith(_GZIP)
  if zipped and os.fspath(path).lower().endswith('.fits.gz'):
    return 'FITS'
  if data.startswith(tiff_file.MAGIC) and extra_kinds.kind_of(data) is None:
    if every_tiff or tiff_file.is_array(path, image_decoder.MAX_PIXELS):
      return 'TIFF'
  return None


def is_name(path: str | os.PathLike[str]) -> bool:
  """Returns whether a name ends as that of an array that is no picture."""
  return os.fspath(path).lower().endswith(SUFFIXES)


def suffix_of(path: pathlib.Path, kind: str) -> str:
  """Returns the suffix of the result of an array, its own if it can be."""
  own = path.suffix
  return own if own.lower() in _WRITTEN[kind] else _WRITTEN[kind][0]


def check_suffix(path: pathlib.Path, kind: str) -> None:
  """Raises ValueError unless an array of a kind may be written to a path."""
  if path.suffix.lower() not in _WRITTEN[kind]:
    raise ValueError(
      f'{printable(path)}: an array keeps its kind, {kind}; give a name that '
      f'ends in {" or ".join(_WRITTEN[kind])}.'
    )


def stem_of(path: pathlib.Path) -> str:
  """Returns the name of an array without its suffix, which may be double."""
  name = path.name
  for suffix in sorted(SUFFIXES, key=len, reverse=True):
    if name.lower().endswith(suffix):
      return name[: -len(suffix)]
  return path.stem


def open_array(
  path: str | os.PathLike[str], kind: str, axes: str | None = None
) -> array_file.ArrayFile:
  """Opens an array.

  Args:
    path: the file.
    kind: what `kind_of` returns.
    axes: what `array_layout.parse_axes` returns; None takes the file's own.

  Raises:
    ValueError: it cannot be used; the message names it.
  """
  try:
    return _OPEN[kind](path, axes)
  except ValueError as error:
    raise ValueError(f'{printable(path)}: {error}.') from error
