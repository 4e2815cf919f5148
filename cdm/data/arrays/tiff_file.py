"""Reads and writes TIFF files of measured values, by tifffile.

Their samples may be floating point or signed, of any number, on any number of
pages. Strips and tiles are decoded one row of them at a time.
"""

import functools
import os
import pathlib
from typing import Any

import numpy as np
import tifffile

from cdm.data import shell_commands
from cdm.data.arrays import array_file, array_layout, tiff_places
from cdm.data.arrays.array_layout import Layout

MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
NODATA, GEO_KEYS = 42113, 34735
_PHOTOMETRICS = {0: 'miniswhite', 1: 'minisblack', 2: 'rgb'}
# Decoded strips that are kept: two readers follow each other down a page.
_KEPT_BYTES = 2**27
_BIG = 2**32 - 2**25  # as tifffile itself decides


def is_array(path: str | os.PathLike[str], most_pixels: int) -> bool:
  """Whether a TIFF file holds an array rather than a photograph.

  That is so if its samples are floating point, signed or of 32 bits, or are
  more than four, if it has several pages of one size, says its place on the
  Earth, or has more pixels than a photograph may have. Where the package for
  its compression is missing, a photograph with pages or a place stays one.

  Args:
    path: the file.
    most_pixels: of a photograph.
  """
  try:
    with tifffile.TiffFile(path) as file:
      page, series = file.pages.first, file.series[0]
      if page.photometric not in _PHOTOMETRICS or page.dtype is None:
        return False
      if page.bitspersample != page.dtype.itemsize * 8:
        return False
      more = len(series.pages) > 1 or GEO_KEYS in page.tags
      return (
        page.dtype not in (np.uint8, np.uint16)
        or page.samplesperpixel > 4
        or page.imagewidth * page.imagelength > most_pixels
        or (more and page.compression in tifffile.TIFF.DECOMPRESSORS)
      )
  except Exception:  # Damaged bytes raise nearly anything; it is named later.
    return False


def open_file(
  path: str | os.PathLike[str], axes: str | None
) -> array_file.ArrayFile:
  """Opens a file.

  Args:
    path: the file.
    axes: see `array_layout.with_axes`.

  Raises:
    ValueError: it cannot be used; the message is a clause.
  """
  try:
    file = tifffile.TiffFile(path)
  except Exception as error:  # Damaged bytes raise nearly anything.
    raise ValueError('the TIFF file is damaged or cut off') from error
  try:
    return _opened(file, axes)
  except BaseException:
    file.close()
    raise


def _opened(file, axes):
  try:
    series, page = file.series[0], file.series[0].keyframe
    dtype = page.dtype
  except Exception as error:
    raise ValueError('the TIFF file is damaged or cut off') from error
  if dtype is None or page.photometric not in _PHOTOMETRICS:
    raise ValueError(
      'the TIFF file has a palette, or colours that are not RGB; save it as '
      'grey or RGB'
    )
  letters = {'Y': 'H', 'X': 'W', 'S': 'C'}
  own = ''.join(letters.get(axis, 'P') for axis in series.axes)
  nodata = page.tags.get(NODATA)
  layout = Layout(
    'TIFF',
    tuple(series.shape),
    own,
    np.dtype(dtype).newbyteorder(file.byteorder),
    nodata=None if nodata is None else _number(nodata.value),
  )
  layout = array_layout.with_axes(layout, axes)
  array_layout.check(layout)
  notes = ()
  if len(file.series) > 1:
    notes = ('only its first series of pages is read',)
  if series.dataoffset is not None:
    read, close = array_file.raw_reader(
      file.filehandle.path, series.dataoffset, layout
    )
    file.close()
    return array_file.ArrayFile(layout, read, close, notes)
  return array_file.ArrayFile(
    layout, _Segments(file, series, layout).read_plane, file.close, notes
  )


def _number(text):
  """Returns GDAL's text of a number, or None if it is none."""
  try:
    found = float(str(text).strip('\0 '))
  except ValueError:
    return None
  return None if np.isnan(found) else found


class _Segments:
  """Reads rows of pages that are compressed, or cut into tiles."""

  def __init__(self, file: Any, series: Any, layout: Layout):
    self._file, self._series, self._layout = file, series, layout
    page = series.keyframe
    # Separate planes of a page: [S, H, W].
    self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
    self._step = page.tilelength if page.is_tiled else page.rowsperstrip
    self._step = min(int(self._step), page.imagelength)
    self._across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    size = self._step * layout.width * layout.interleaved
    kept = max(2, _KEPT_BYTES // (size * layout.dtype.itemsize))
    self._band = functools.lru_cache(maxsize=kept)(self._decoded)

  def read_plane(self, index, first, last):
    """See `array_file.ArrayFile`."""
    number = self._layout.plane_number(index)
    page, plane = divmod(number, self._planes)
    step = self._step
    parts = []
    for band in range(first // step, -(-last // step)):
      top = band * step
      rows = self._band(page, plane, band)
      parts.append(rows[max(0, first - top) : last - top])
    return np.concatenate(parts)

  def _decoded(self, number, plane, band):
    """Returns the rows of one strip, or of one row of tiles, [n, W, C]."""
    page, keyframe = self._series.pages[number], self._series.keyframe
    down = -(-keyframe.imagelength // self._step)
    layout = self._layout
    rows = min(self._step, layout.height - band * self._step)
    found = np.zeros((rows, layout.width, layout.interleaved), layout.dtype)
    for i in range(self._across):
      segment = (plane * down + band) * self._across + i
      offset = page.dataoffsets[segment]
      count = page.databytecounts[segment]
      if not count:
        continue  # A sparse file leaves out what is zero.
      self._file.filehandle.seek(offset)
      data = self._file.filehandle.read(count)
      if len(data) != count:
        raise ValueError('the file is cut off')
      piece, place, size = self._decode(keyframe, data, segment)
      left = place[3]
      width = min(size[2], layout.width - left)
      found[:, left : left + width] = piece[0, :rows, :width]
    return found

  @staticmethod
  def _decode(keyframe, data, segment):
    try:
      return keyframe.decode(data, segment)
    except Exception as error:  # Damaged bytes raise nearly anything.
      if 'imagecodecs' in str(error):
        raise ValueError(
          'its compression needs a package that is not installed; run: '
          f'{shell_commands.install("cdm[science]")}'
        ) from error
      raise ValueError('the TIFF file is damaged or cut off') from error


def begin(
  path: pathlib.Path,
  layout: Layout,
  source: str | os.PathLike[str],
  *,
  software: str,
) -> int:
  """Writes the head of a file; returns where its numbers begin.

  Args:
    path: an empty file.
    layout: what it will hold.
    source: the file that is enlarged, whose description, resolution and place
      on the Earth are kept, for the pixels of the result.
    software: what makes the file.
  """
  with tifffile.TiffFile(source) as file:
    series, page = file.series[0], file.series[0].keyframe
    old = [series.shape[series.axes.index(axis)] for axis in 'YX']
    times = layout.height / old[0], layout.width / old[1]
    given: dict[str, Any] = {
      'photometric': _PHOTOMETRICS[page.photometric],
      'extratags': tiff_places.tags(page, times),
      **tiff_places.description(page, (layout.height, layout.width), times),
      **tiff_places.resolution(page, times),
    }
    if page.samplesperpixel > 1:
      given['planarconfig'] = 'contig' if page.planarconfig == 1 else 'separate'
      colours = 3 if given['photometric'] == 'rgb' else 1
      extra = [int(one) for one in page.extrasamples]
      missing = page.samplesperpixel - colours - len(extra)
      given['extrasamples'] = extra + [0] * missing
    byteorder = file.byteorder
  big = layout.nbytes > _BIG
  with tifffile.TiffWriter(path, bigtiff=big, byteorder=byteorder) as writer:
    found = writer.write(
      None,
      shape=layout.shape,
      dtype=layout.dtype.newbyteorder('='),
      software=software,
      returnoffset=True,
      **given,
    )
  assert found is not None
  return found[0]
