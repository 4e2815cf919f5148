"""Reads and writes FITS images, by the package astropy, which is optional.

The stored numbers are read and written, and BSCALE and BZERO say what they
mean. All header cards are kept; those that speak of the pixel grid are changed,
see `fits_grid`.
"""

import importlib
import os
import pathlib
from typing import Any

import numpy as np

from cdm.data import shell_commands
from cdm.data.arrays import array_file, array_layout, fits_grid
from cdm.data.arrays.array_layout import Layout

MAGIC = b'SIMPLE  ='
MARK = 'CDMMARK'  # a card of 64 characters, see `array_marks`
_BLOCK = 2880
_DTYPES = {8: '>u1', 16: '>i2', 32: '>i4', -32: '>f4', -64: '>f8'}


def astropy_fits() -> Any:
  """Returns `astropy.io.fits`.

  Raises:
    ValueError: it is not installed; the message is a clause with the command.
  """
  try:
    return importlib.import_module('astropy.io.fits')
  except ImportError as error:
    raise ValueError(
      'FITS files need a package that is not installed; run: '
      f'{shell_commands.install("cdm[science]")}'
    ) from error


def _first_image(path):
  """Returns (open HDU list, index of the first HDU with an image)."""
  fits = astropy_fits()
  try:
    # Numbers stay as they are stored, and are read, not mapped.
    hdus = fits.open(
      path,
      memmap=False,
      do_not_scale_image_data=True,
      ignore_blank=True,
      uint=False,
    )
  except Exception as error:  # Damaged bytes raise nearly anything.
    raise ValueError('the FITS file is damaged or cut off') from error
  for i, hdu in enumerate(hdus):
    if hdu.is_image and len(getattr(hdu, 'shape', ())) >= 2:
      return hdus, i
  hdus.close()
  raise ValueError('the FITS file has no image of two or more axes')


def open_file(
  path: str | os.PathLike[str], axes: str | None
) -> array_file.ArrayFile:
  """Opens the first image of a file.

  Args:
    path: the file.
    axes: see `array_layout.with_axes`.

  Raises:
    ValueError: it cannot be used; the message is a clause.
  """
  hdus, number = _first_image(path)
  try:
    hdu = hdus[number]
    header, shape = hdu.header, tuple(hdu.shape)
    bits = header['BITPIX']
    if bits not in _DTYPES:
      raise ValueError(
        f'the image has BITPIX {bits}; store it with BITPIX 8, 16, 32, -32 or '
        '-64'
      )
    dtype = np.dtype(_DTYPES[bits])
    layout = Layout(
      'FITS',
      shape,
      'P' * (len(shape) - 2) + 'HW',
      dtype,
      float(header.get('BSCALE', 1.0)),
      float(header.get('BZERO', 0.0)),
      header.get('BLANK') if bits > 0 else None,
    )
    layout = array_layout.with_axes(layout, axes)
    array_layout.check(layout)
  except BaseException:
    hdus.close()
    raise
  others = [
    other.name or str(i)
    for i, other in enumerate(hdus)
    if i != number and (i or getattr(other, 'shape', ()))
  ]
  notes = ()
  if others:
    notes = (f'its other extensions are left out: {", ".join(others[:8])}',)

  def read_plane(index, first, last):
    try:
      found = hdu.section[(*index, slice(first, last), slice(None))]
    except Exception as error:  # Damaged bytes raise nearly anything.
      raise ValueError('the FITS file is damaged or cut off') from error
    return np.asarray(found).astype(dtype, copy=False)

  return array_file.ArrayFile(layout, read_plane, hdus.close, notes)


def begin(
  path: pathlib.Path,
  layout: Layout,
  source: str | os.PathLike[str],
  *,
  software: str,
  mark: str,
) -> int:
  """Writes the headers of a file; returns where its numbers begin.

  An image in an extension stays in an extension, behind the primary header.

  Args:
    path: an empty file.
    layout: what it will hold.
    source: the file that is enlarged.
    software: what makes the file.
    mark: see `MARK`.
  """
  fits = astropy_fits()
  hdus, number = _first_image(source)
  with hdus:
    header = hdus[number].header.copy()
    old = dict(zip('HW', hdus[number].shape[-2:], strict=True))
    times = layout.height / old['H'], layout.width / old['W']
    fits_grid.refine(header, times)
    header['NAXIS1'], header['NAXIS2'] = layout.width, layout.height
    header[MARK] = mark
    header.add_history(software)
    blocks = [header]
    if number:
      first = hdus[0].header.copy()
      fits_grid.drop_sums(first)
      blocks = [first, header]
    else:
      header.pop('EXTEND', None)
    if number and header.get('XTENSION') != 'IMAGE':
      # A compressed image is a table; it is written as an image.
      header['XTENSION'] = 'IMAGE'
    text = ''.join(block.tostring(padding=True) for block in blocks)
  data = text.encode('ascii')
  assert len(data) % _BLOCK == 0 and fits is not None
  path.write_bytes(data)
  return len(data)


def padded_size(offset: int, layout: Layout) -> int:
  """Returns the size of a file whose numbers begin at an offset, in blocks."""
  return offset + -(-layout.nbytes // _BLOCK) * _BLOCK


def has_mark(path: pathlib.Path, mark: str) -> bool:
  """Returns whether a file is whole and has a mark in one of its headers."""
  try:
    hdus, number = _first_image(path)
  except (ValueError, OSError):
    return False
  with hdus:
    hdu = hdus[number]
    if hdu.header.get(MARK) != mark:
      return False
    info = hdu.fileinfo()
    needed = info['datLoc'] + info['datSpan']
  return path.stat().st_size >= needed
