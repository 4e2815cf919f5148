"""Changes the header of a FITS image for a finer grid of pixels.

Pixel p of an axis, whose centre is at p = 1, 2, ..., becomes s pixels:

  p' = (p - 1/2) s + 1/2

So the reference pixel moves so, and what counts units per pixel is divided by
s: the columns of CD or PC, CDELT, and with factors of its own each term of a
SIP polynomial. The sky of every point of the image is the same afterwards.
"""

import re
import string
from typing import Any

_SUMS = ('CHECKSUM', 'DATASUM', 'ZHECKSUM', 'ZDATASUM', 'DATAMIN', 'DATAMAX')
_SIP = re.compile(r'(?P<of>[AB]P?)_(?P<p>\d+)_(?P<q>\d+)')


def refine(header: Any, times: tuple[float, float]) -> None:
  """Changes a header in place.

  Args:
    header: `astropy.io.fits.Header` of an image.
    times: how many rows and columns a row and a column become.
  """
  drop_sums(header)
  y, x = times
  for version in ('', *string.ascii_uppercase):
    _refine_matrix(header, (x, y), version)
    for axis, more in ((1, x), (2, y)):
      _move(header, f'CRPIX{axis}{version}', more)
  for axis, more in ((1, x), (2, y)):
    _scale(header, f'LTM{axis}_{axis}', more)
    _move(header, f'LTV{axis}', more)
  for key in list(header):
    found = _SIP.fullmatch(key)
    if found:
      p, q = int(found['p']), int(found['q'])
      own = x if found['of'].startswith('A') else y
      header[key] = header[key] * own / (x**p * y**q)


def _refine_matrix(header, times, version):
  """Changes what turns pixels into degrees, of one version of coordinates."""
  for axis, more in enumerate(times, start=1):
    column = {
      kind: [
        key
        for key in header
        if re.fullmatch(rf'{kind}\d+_{axis}{version}', key)
      ]
      for kind in ('CD', 'PC')
    }
    step = f'CDELT{axis}{version}'
    mixed = any(not re.match(r'PC[12]_', key) for key in column['PC'])
    if column['CD']:
      for key in column['CD']:
        _scale(header, key, 1 / more)
    elif column['PC'] and (mixed or times[0] != times[1]):
      header.setdefault(f'PC{axis}_{axis}{version}', 1.0)
      for key in {*column['PC'], f'PC{axis}_{axis}{version}'}:
        _scale(header, key, 1 / more)
    elif step in header:
      # A rotation stays, because both axes become equally many pixels; with
      # CROTA2, but for the rounding of the sides.
      _scale(header, step, 1 / more)
    elif f'CRPIX{axis}{version}' in header:
      header[step] = 1 / more


def _move(header, key, more):
  if key in header:
    header[key] = (header[key] - 0.5) * more + 0.5


def _scale(header, key, factor):
  if key in header:
    header[key] = header[key] * factor


def drop_sums(header: Any) -> None:
  """Removes what a header says of the numbers that follow it."""
  for key in _SUMS:
    header.remove(key, ignore_missing=True)
