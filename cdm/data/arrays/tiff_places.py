"""Changes what a TIFF file says of the places and sizes of its pixels.

A pixel that becomes s x s pixels is s times as long as each of them. So the
sizes of pixels are divided by s, and the coordinates of tie points, which count
pixels, are multiplied. Where points lie at the centres of pixels
(RasterPixelIsPoint), coordinate 0 is the centre of the first pixel:
(i + 1/2) s - 1/2.
"""

import re
from typing import Any

import numpy as np

_TIES, _SCALE, _MATRIX = 33922, 33550, 34264
_KEYS, _GEO, _GDAL = 34735, (34735, 34736, 34737), (42112, 42113)
_RASTER_TYPE, _IS_POINT = 1025, 2
_SHORT, _ASCII, _DOUBLE = 3, 2, 12
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 282, 283, 296
_DESCRIPTION = 270


def tags(page: Any, times: tuple[float, float]) -> list[tuple]:
  """Returns the tags of GeoTIFF and GDAL, as `extratags` of tifffile.

  Args:
    page: the first page of the file that is enlarged, a `tifffile.TiffPage`.
    times: how many rows and columns a row and a column become.
  """
  found = {
    code: page.tags[code].value
    for code in (_TIES, _SCALE, _MATRIX, *_GEO, *_GDAL)
    if code in page.tags
  }
  y, x = times
  keys = np.reshape(found.get(_KEYS, ()), -1)
  # Four numbers for a key: its id, where its value is, a count, the value.
  is_point = any(
    keys[i] == _RASTER_TYPE and keys[i + 3] == _IS_POINT
    for i in range(4, len(keys) - 3, 4)
  )
  if _SCALE in found:
    per_x, per_y, per_z = found[_SCALE]
    found[_SCALE] = (per_x / x, per_y / y, per_z)
  if _TIES in found:
    ties = np.reshape(np.array(found[_TIES], float), (-1, 6))
    half = 0.5 if is_point else 0.0
    ties[:, 0] = (ties[:, 0] + half) * x - half
    ties[:, 1] = (ties[:, 1] + half) * y - half
    found[_TIES] = tuple(ties.ravel())
  if _MATRIX in found:
    # From coordinates of pixels to those of the Earth; these are (x, y) of the
    # file that is enlarged for those of the result.
    half = 0.5 if is_point else 0.0
    finer = np.diag([1 / x, 1 / y, 1.0, 1.0])
    finer[:2, 3] = half / x - half, half / y - half
    matrix = np.reshape(np.array(found[_MATRIX], float), (4, 4)) @ finer
    found[_MATRIX] = tuple(matrix.ravel())
  return [_tag(code, value) for code, value in sorted(found.items())]


def _tag(code, value):
  if isinstance(value, str):
    return code, _ASCII, 0, value, True
  values = tuple(np.ravel(value).tolist())
  return code, _SHORT if code == _KEYS else _DOUBLE, len(values), values, True


def description(
  page: Any, sides: tuple[int, int], times: tuple[float, float]
) -> dict[str, Any]:
  """Returns the description of a file, as arguments of `TiffWriter.write`.

  In the XML of OME-TIFF the numbers and sizes of pixels are changed.

  Args:
    page: see `tags`.
    sides: rows and columns of the result.
    times: see `tags`.
  """
  text = page.description
  if not text or text.startswith('{"shape":'):  # tifffile's own, written anew
    return {}
  if text.lstrip().startswith('<?xml') and '<OME' in text:
    for axis, side, more in zip('YX', sides, times, strict=True):
      text = re.sub(rf'(?<=\bSize{axis}=")\d+(?=")', str(side), text)
      text = re.sub(
        rf'(?<=\bPhysicalSize{axis}=")[^"]+(?=")',
        lambda found, more=more: repr(float(found[0]) / more),
        text,
      )
  return {'description': text.encode(), 'metadata': None}


def resolution(page: Any, times: tuple[float, float]) -> dict[str, Any]:
  """Returns the pixels per unit of length, as arguments of `TiffWriter.write`.

  Args:
    page, times: see `tags`.
  """
  values = []
  for code, more in ((_X_RESOLUTION, times[1]), (_Y_RESOLUTION, times[0])):
    tag = page.tags.get(code)
    if tag is None or not tag.value[1]:
      return {}
    values.append(tag.value[0] / tag.value[1] * more)
  unit = page.tags.get(_UNIT)
  given: dict[str, Any] = {'resolution': tuple(values)}
  return given if unit is None else {**given, 'resolutionunit': unit.value}
