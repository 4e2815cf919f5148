"""Says what the axes of an array file are, and which values it stores.

Every axis has a letter: H for rows, W for columns, C for the channels of a
pixel, and P for pages, each of which is a picture by itself. H and W stand side
by side; a C may stand after them, or among the pages in front.
"""

import math
import re
from typing import NamedTuple

import numpy as np

# What is enlarged: floating point and whole numbers of up to 32 bits, whose
# values float64 holds exactly.
DTYPES = ('u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'f2', 'f4', 'f8')
_NAMES = 'uint8, int8, uint16, int16, uint32, int32, float16, float32, float64'
# An axis of channels is no longer than this unless it is called so.
_MOST_CHANNELS = 64


class Layout(NamedTuple):
  """What an array file holds.

  Attributes:
    kind: 'NPY', 'TIFF' or 'FITS'.
    shape: of the array, as stored.
    axes: a letter for each axis, see the module.
    dtype: of the stored numbers, with their byte order.
    scale, zero: a value is scale * stored + zero.
    nodata: the stored number that means that there is no value, or None; with
      floating point, what is not finite has none either.
  """

  kind: str
  shape: tuple[int, ...]
  axes: str
  dtype: np.dtype
  scale: float = 1.0
  zero: float = 0.0
  nodata: float | None = None

  @property
  def height(self) -> int:
    """Rows of a page."""
    return self.shape[self.axes.index('H')]

  @property
  def width(self) -> int:
    """Columns of a page."""
    return self.shape[self.axes.index('W')]

  @property
  def channels(self) -> int:
    """Channels of a page; 1 if the array has no such axis."""
    return self.shape[self.axes.index('C')] if 'C' in self.axes else 1

  @property
  def pages(self) -> int:
    """Number of pages."""
    return math.prod(
      n for n, axis in zip(self.shape, self.axes, strict=True) if axis == 'P'
    )

  @property
  def interleaved(self) -> int:
    """Numbers that are stored side by side for a pixel."""
    return self.channels if self.axes.endswith('C') else 1

  @property
  def nbytes(self) -> int:
    """Bytes of all numbers."""
    return math.prod(self.shape) * self.dtype.itemsize

  def enlarged(self, height: int, width: int) -> 'Layout':
    """Returns the layout with other numbers of rows and columns."""
    sides = {'H': height, 'W': width}
    shape = tuple(
      sides.get(axis, n) for n, axis in zip(self.shape, self.axes, strict=True)
    )
    return self._replace(shape=shape)

  def plane(self, page: int, channel: int) -> tuple[int, ...]:
    """Returns the index along the axes before H of a page's channel.

    Args:
      page: number of the page.
      channel: number of the channel; of no effect where channels are stored
        side by side.
    """
    before = self.axes[: self.axes.index('H')]
    pages = [
      n for n, axis in zip(self.shape, before, strict=False) if axis == 'P'
    ]
    of_page = list(np.unravel_index(page, pages)) if pages else []
    return tuple(
      int(of_page.pop(0)) if axis == 'P' else channel for axis in before
    )

  def plane_number(self, index: tuple[int, ...]) -> int:
    """Returns how many planes are stored before one; see `plane`."""
    before = self.shape[: self.axes.index('H')]
    return int(np.ravel_multi_index(index, before)) if before else 0


def check(layout: Layout) -> None:
  """Raises ValueError unless pictures can be made of an array."""
  if layout.dtype.kind not in 'uif' or layout.dtype.str[1:] not in DTYPES:
    raise ValueError(
      f'the array is {layout.dtype}; store it as one of {_NAMES}'
    )
  if min(layout.shape, default=0) < 1:
    raise ValueError(f'the array {list(layout.shape)} is empty')


def parse_axes(text: str) -> str:
  """Returns `--axes` in capital letters.

  Raises:
    ValueError: it names no axes.
  """
  axes = text.upper()
  if not re.fullmatch(r'(?=[^C]*C?[^C]*$)[PC]*HWC?', axes):
    raise ValueError(
      f'--axes={text}: give a letter for each axis in the order in which they '
      'are stored: H and W side by side, C at most once, before or after them, '
      'and P for pages before them, such as HWC, CHW or PHW.'
    )
  return axes


def with_axes(layout: Layout, axes: str | None) -> Layout:
  """Returns a layout with the axes that are asked for, or with its own.

  Args:
    layout: the layout, whose own axes may be a guess.
    axes: what `parse_axes` returns; None for its own.

  Raises:
    ValueError: the array has another number of axes; or its own axes are a
      guess that seems to be wrong.
  """
  shape = list(layout.shape)
  if axes is not None:
    if len(axes) != len(shape):
      raise ValueError(
        f'--axes={axes} names {len(axes)} axes, but the array is {shape}'
      )
    sides = layout.axes.find('HW')
    if layout.kind != 'NPY' and axes.find('HW') != sides:
      raise ValueError(
        f'--axes={axes}: the rows and columns of the array {shape} are its '
        f'axes {sides + 1} and {sides + 2}, as the file itself says'
      )
    return layout._replace(axes=axes)
  if layout.axes == 'HWC' and shape[2] > max(_MOST_CHANNELS, shape[0]):
    raise ValueError(
      f'the array is {shape}, which would be {shape[2]:,} channels of '
      f'{shape[1]}x{shape[0]} pixels; give --axes=CHW or --axes=PHW if its '
      'first axis counts channels or pages, or --axes=HWC if it does not'
    )
  return layout
