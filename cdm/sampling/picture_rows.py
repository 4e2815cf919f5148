"""Reads pictures by bands of rows, so that none needs to be whole in memory.

A chain of these makes a large picture: rows are drawn by a stage, shrunk to the
size that is asked for, made consistent with the low-res picture, and written,
while only the rows that the next one still needs are held.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from cdm.ops import partial_resize
from cdm.ops.partial_resize import H_AXIS, W_AXIS

BAND = 64  # rows that are handed on at once


class Rows(Protocol):
  """Equally large pictures, of which bands of rows are asked for.

  Attributes:
    height, width: of each, in pixels.
  """

  height: int
  width: int

  def rows(self, first: int, last: int) -> np.ndarray:
    """Returns rows, float32 [N, last - first, width, 3], 1 is white.

    Args:
      first, last: the band. `first` is never less than in an earlier call.
    """
    ...


class WholePictures:
  """Pictures that are in memory."""

  def __init__(self, images: np.ndarray):
    """Takes the pictures as they are.

    Args:
      images: [N, H, W, 3], uint8 or uint16 from black to white, or float32
        in [-1, 1].
    """
    self._images = images
    self.height, self.width = images.shape[1:3]

  def rows(self, first: int, last: int) -> np.ndarray:
    """See `Rows`."""
    band = self._images[:, first:last]
    if band.dtype == np.float32:
      return band
    most = np.iinfo(band.dtype).max
    # As `pixels.to_float`: rounded once.
    return (2 * band.astype(np.float32) - most) * np.float32(1 / most)


class StreamedRows:
  """Pictures whose bands come one after the other."""

  def __init__(self, bands: Iterator[np.ndarray], height: int, width: int):
    """Takes an iterator of bands, which is advanced as rows are asked for.

    Args:
      bands: float32 [N, n, W, 3], from the top to the bottom.
      height, width: see `Rows`.
    """
    self.height, self.width = height, width
    self._bands = bands
    self._held: list[np.ndarray] = []
    self._first = self._last = 0  # the rows that are held

  def rows(self, first: int, last: int) -> np.ndarray:
    """See `Rows`; the colours are clipped to [-1, 1]."""
    assert self._first <= first < last <= self.height
    while self._last < last:
      # What is above is dropped before the next band is made.
      while self._held and self._first + self._held[0].shape[1] <= first:
        self._first += self._held.pop(0).shape[1]
      band = next(self._bands)
      self._held.append(np.clip(band, -1.0, 1.0))
      self._last += band.shape[1]
    whole = np.concatenate(self._held, axis=1)
    return whole[:, first - self._first : last - self._first]


class ResizedRows:
  """Pictures that are resized, by a filter that widens where it shrinks."""

  def __init__(self, source: Rows, height: int, width: int, method: str):
    """Takes the pictures that are resized.

    Args:
      source: the pictures.
      height, width: see `Rows`.
      method: see `ops.resize.resize`.
    """
    self._source, self._method = source, method
    self.height, self.width = height, width
    self._columns = partial_resize.taps(source.width, width, 0, width, method)

  def rows(self, first: int, last: int) -> np.ndarray:
    """See `Rows`; an overshoot of the filter is clipped to [-1, 1]."""
    taps = partial_resize.taps(
      self._source.height, self.height, first, last, self._method
    )
    band = self._source.rows(taps.first, taps.last)
    columns = slice(self._columns.first, self._columns.last)
    band = partial_resize.rectangle(band[:, :, columns], taps, self._columns)
    return np.clip(band, -1.0, 1.0)


class BackProjectedRows:
  """Pictures that are made consistent with their low-res pictures.

    x + up(y - down(x))

  It takes back a shift of colours, and most of what does not shrink to the
  low-res picture y.
  """

  def __init__(self, source: Rows, lowres: Rows, *, down: str, up: str):
    """Takes both pictures.

    Args:
      source: x.
      lowres: y, of any smaller size.
      down, up: methods of `ops.resize.resize` that shrink and enlarge.
    """
    self._source, self._lowres, self._down, self._up = source, lowres, down, up
    self.height, self.width = source.height, source.width

  def rows(self, first: int, last: int) -> np.ndarray:
    """See `Rows`."""
    size, low = (self.height, self.width), (self._lowres.height, self._low_w)
    up = partial_resize.taps(low[0], size[0], first, last, self._up)
    down = partial_resize.taps(size[0], low[0], up.first, up.last, self._down)
    above, below = min(down.first, first), max(down.last, last)
    x = self._source.rows(above, below)
    shrunk = self._columns(
      x[:, down.first - above : down.last - above], low[1], self._down
    )
    shrunk = partial_resize.along(shrunk, down, H_AXIS)
    missing = self._lowres.rows(up.first, up.last) - shrunk
    change = self._columns(missing, size[1], self._up)
    change = partial_resize.along(change, up, H_AXIS)
    return x[:, first - above : last - above] + change

  @property
  def _low_w(self):
    return self._lowres.width

  @staticmethod
  def _columns(x, width, method):
    """Resizes whole rows along their width."""
    taps = partial_resize.taps(x.shape[W_AXIS], width, 0, width, method)
    return partial_resize.along(x[:, :, taps.first : taps.last], taps, W_AXIS)


def bands(pictures: Rows, size: int = BAND) -> Iterator[np.ndarray]:
  """Yields all rows, float32 [N, n, W, 3], from the top to the bottom.

  Args:
    pictures: the pictures.
    size: rows of a band.
  """
  for first in range(0, pictures.height, size):
    yield pictures.rows(first, min(first + size, pictures.height))


def levels(x: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
  """Rounds colours to levels, as `pixels.to_uint8` does.

  Args:
    x: float32 [...], clipped to [-1, 1].
    dtype: np.uint8 or np.uint16; or np.float32, which is not rounded.

  Returns:
    [...] of this dtype.
  """
  if dtype is np.float32:
    return np.clip(x, -1.0, 1.0)
  most = np.iinfo(np.dtype(dtype).name).max
  scaled = (x + np.float32(1.0)) * np.float32(most / 2)
  return np.floor(np.clip(scaled, 0.0, most) + 0.5).astype(dtype)
