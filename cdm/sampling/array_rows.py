"""Reads the pages and channels of an array as pictures, and writes them back.

A network sees values in [-1, 1], with every pixel filled. What is written has
the array's own numbers, and no value where the array has none.
"""

from typing import NamedTuple

import numpy as np

from cdm.data.arrays import missing_values, stored_values
from cdm.data.arrays.array_file import ArrayFile
from cdm.data.arrays.value_range import ValueRange


class Unit(NamedTuple):
  """What of an array is drawn as one picture.

  Attributes:
    page: number of the page.
    channels: first channel, and last + 1.
  """

  page: int
  channels: tuple[int, int]


class ArrayRows:
  """Pictures of an array, of the same size; see `picture_rows.Rows`."""

  def __init__(
    self,
    file: ArrayFile,
    units: list[Unit],
    range: ValueRange,
    *,
    channels: int,
    is_clipped: bool,
  ):
    """Takes an open file.

    Args:
      file: the array.
      units: what is drawn.
      range: what becomes -1 and 1.
      channels: of the pictures; a unit of one channel is repeated.
      is_clipped: whether values outside of the range become its ends.
    """
    self.height, self.width = file.layout.height, file.layout.width
    self._file, self._units, self._range = file, units, range
    self._channels, self._is_clipped = channels, is_clipped
    self._channels_of: dict[int, tuple[int, int]] = {}
    for page, (begin, end) in units:
      before = self._channels_of.get(page, (begin, end))
      self._channels_of[page] = min(before[0], begin), max(before[1], end)

  def rows(self, first: int, last: int) -> np.ndarray:
    """See `picture_rows.Rows`."""
    made, bands = [], {}
    for unit in self._units:
      if unit.page not in bands:
        bands[unit.page] = self._filled(unit.page, first, last)
      begin, end = (c - self._channels_of[unit.page][0] for c in unit.channels)
      band = bands[unit.page][..., begin:end]
      repeats = self._channels // band.shape[-1]
      made.append(np.repeat(band, repeats, axis=-1) if repeats > 1 else band)
    return np.stack(made)

  def _filled(self, page, first, last):
    """Returns the channels of a page in [-1, 1], float32 [n, W, C]."""
    reach, used = missing_values.REACH, slice(*self._channels_of[page])

    def read(first, last):
      rows = self._file.rows(page, first, last)[..., used]
      return stored_values.values(rows, self._file.layout)

    found = read(first, last)
    missing = np.isnan(found)
    above = 0
    if missing.any():
      above = min(reach, first)
      found = read(first - above, min(last + reach, self.height))
      missing = np.isnan(found)
    unit = self._range.of_channels(used).to_unit(found)
    for c in np.flatnonzero(missing.any(axis=(0, 1))):
      unit[..., c] = missing_values.fill(unit[..., c], missing[..., c], 0.0)
    unit = unit[above : above + last - first]
    return np.clip(unit, -1.0, 1.0) if self._is_clipped else unit


def finished(
  band: np.ndarray,
  unit: Unit,
  *,
  first: int,
  height: int,
  file: ArrayFile,
  range: ValueRange,
  has_missing: bool,
) -> np.ndarray:
  """Returns drawn rows of a unit as they are stored, [n, W, C].

  Args:
    band: float32 [n, W, C] in [-1, 1] but for an overshoot; the mean of
      repeated channels is taken.
    unit: what they are.
    first: number of the first row.
    height: rows of the whole result.
    file: the array that they are made of.
    range: of the unit's channels.
    has_missing: whether pixels of the array have no value. Theirs then have
      none either: they hold the number that the array has there.
  """
  count = unit.channels[1] - unit.channels[0]
  if band.shape[-1] != count:
    band = band.mean(axis=-1, keepdims=True)
  layout = file.layout
  made = stored_values.stored(range.to_values(band), layout)
  if not has_missing:
    return made
  rows = missing_values.nearest_rows(
    first, first + len(band), height, layout.height
  )
  columns = missing_values.nearest_rows(
    0, band.shape[1], band.shape[1], layout.width
  )
  top = int(rows.min())
  old = file.rows(unit.page, top, int(rows.max()) + 1)
  old = old[..., slice(*unit.channels)][rows - top][:, columns]
  return np.where(np.isnan(stored_values.values(old, layout)), old, made)
