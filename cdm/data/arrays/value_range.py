"""Maps the values of an array to [-1, 1], which networks work on, and back.

u = 2 (v - low) / (high - low) - 1
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from cdm.data.arrays.array_layout import Layout


class ValueRange(NamedTuple):
  """What becomes -1 and 1.

  Attributes:
    low, high: float64 [C] or [1], of each channel or of all.
    origin: where they come from, a clause.
  """

  low: np.ndarray
  high: np.ndarray
  origin: str

  def to_unit(self, values: np.ndarray) -> np.ndarray:
    """Returns float32 [..., C] of values float64 [..., C]."""
    low, width = self._low_and_width
    return (2.0 * (values - low) / width - 1.0).astype(np.float32)

  def to_values(self, unit: np.ndarray) -> np.ndarray:
    """Returns float64 [..., C] of [..., C] in [-1, 1]."""
    low, width = self._low_and_width
    return low + (unit.astype(np.float64) + 1.0) / 2.0 * width

  @property
  def _low_and_width(self):
    # Equal values become 0.
    same = self.high <= self.low
    low = np.where(same, self.low - 0.5, self.low)
    return low, np.where(same, 1.0, self.high - self.low)

  def of_channels(self, channels: slice) -> 'ValueRange':
    """Returns the range of some channels."""
    if len(self.low) == 1:
      return self
    return self._replace(low=self.low[channels], high=self.high[channels])

  def __str__(self) -> str:
    low, high = float(self.low.min()), float(self.high.max())
    each = '' if len(self.low) == 1 else ', each channel its own'
    return f'values {low:g} to {high:g} ({self.origin}{each})'


def parse(text: str) -> tuple[float, float]:
  """Returns (low, high) of `--range=LOW:HIGH`.

  Raises:
    ValueError: it is no range.
  """
  try:
    low, high = map(float, text.split(':'))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
      raise ValueError
  except ValueError:
    raise ValueError(
      f'--range={text}: give two numbers, the lower first, such as '
      '--range=0:4095 or --range=-1000:3000.'
    ) from None
  return low, high


def given(low: float, high: float, origin: str) -> ValueRange:
  """Returns one range of all channels."""
  return ValueRange(np.array([low], float), np.array([high], float), origin)


def of_dtype(layout: Layout) -> ValueRange | None:
  """Returns the range that a dtype means: that of uint8 and uint16, or None.

  FITS files count photons or electrons, whatever their dtype is.
  """
  dtype = layout.dtype
  if layout.kind == 'FITS' or dtype.kind != 'u' or dtype.itemsize > 2:
    return None
  return given(0, np.iinfo(dtype).max, f'of {dtype.name}')


def found(bands: Iterable[np.ndarray], channels: int) -> ValueRange | None:
  """Returns the lowest and highest value of each channel.

  Args:
    bands: float64 [n, W, C], NaN where there is no value.
    channels: C.

  Returns:
    None if a channel has no value at all.
  """
  low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
  for band in bands:
    there = np.isfinite(band)
    low = np.minimum(low, np.where(there, band, np.inf).min(axis=(0, 1)))
    high = np.maximum(high, np.where(there, band, -np.inf).max(axis=(0, 1)))
  if not np.isfinite(low).all():
    return None
  return ValueRange(low, high, 'found')
