"""Cuts arrays of measured values into patches, to train on them.

The images of this source are float32 in [-1, 1], and have the channels of the
arrays; see `arrays.value_range` for how values become so.
"""

import bisect
import hashlib
import itertools
import os
import threading
from typing import Any

import numpy as np

from cdm.data import picture_files, source
from cdm.data.arrays import (
  array_kinds,
  array_layout,
  missing_values,
  npz_file,
  stored_values,
  value_range,
)
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

_NPZ = '.npz'


class ArrayPatches:
  """The patches of all arrays of a folder, or of one file.

  Every page of an array is a picture; a .npy or .npz file of four axes holds
  [N, H, W, C]. Patches lie side by side from the top left on, and what remains
  at the right and at the bottom is left out.
  """

  image_dtype = np.float32
  num_classes: int = 0
  class_names: tuple[str, ...] = ()

  def __init__(
    self,
    path: str,
    range: tuple[float, float] | None = None,
    size: int = 0,
    axes: str = '',
  ):
    """Reads the heads of all files.

    Args:
      path: a .npy, .npz, TIFF or FITS file, or a folder of them.
      range: (low, high), the values that become -1 and 1; values beyond are
        clipped. None takes the range of uint8 or uint16, and is refused for
        other arrays: training and evaluation data must have the same.
      size: side of a patch, in pixels; 0 takes every page whole.
      axes: a letter for each axis of the arrays, see `array_layout`; '' takes
        those of each file.

    Raises:
      ValueError: there are no arrays, or one cannot be used.
    """
    self.path = os.path.expanduser(path)
    if size < 0:
      raise ValueError(f'size is {size}; it must be at least 0.')
    if range is not None and not range[0] < range[1]:
      raise ValueError(f'range is {range}; the first number must be lower.')
    self._axes = array_layout.parse_axes(axes) if axes else None
    self._range, self._size = range, size
    self.files = _files(self.path)
    self._open()
    self._starts = list(itertools.accumulate(map(self._count, self._arrays)))
    if not self._starts[-1]:
      raise ValueError(f'No array of {self.path} has {size}x{size} pixels.')
    channels = {file.layout.channels for file in self._arrays}
    if len(channels) > 1:
      raise ValueError(
        f'The arrays of {self.path} have {sorted(channels)} channels; give '
        'arrays of one number of channels.'
      )
    self.channels = channels.pop()

  def _open(self):
    self._lock = threading.Lock()
    self._arrays = [self._opened(name) for name in self.files]
    self._ranges = [
      self._range_of(name, file)
      for name, file in zip(self.files, self._arrays, strict=True)
    ]

  def _opened(self, name):
    if name.lower().endswith(_NPZ):
      return npz_file.open_file(name, self._axes)
    kind = array_kinds.kind_of(name, every_tiff=True)
    if kind is None:
      raise ValueError(f'{printable(name)} is no array that cdm reads.')
    return array_kinds.open_array(name, kind, self._axes)

  def _range_of(self, name, file):
    if self._range is not None:
      return value_range.given(*self._range, 'given')
    found = value_range.of_dtype(file.layout)
    if found is None:
      raise ValueError(
        f'range is None, but {printable(name)} is {file.layout.dtype.name}, '
        'which has no range of its own; give the lowest and the highest value, '
        'the same for training and evaluation, such as range=(0.0, 1.0).'
      )
    return found

  def _count(self, file):
    rows, columns = self._grid(file.layout)
    return file.layout.pages * rows * columns

  def _grid(self, layout):
    if not self._size:
      return 1, 1
    return layout.height // self._size, layout.width // self._size

  # Open files are not pickled; a worker process opens them again.
  def __getstate__(self) -> dict[str, Any]:
    left_out = ('_arrays', '_ranges', '_lock')
    return {k: v for k, v in self.__dict__.items() if k not in left_out}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._open()

  def __len__(self) -> int:
    return self._starts[-1]

  @property
  def fingerprint(self) -> str:
    """A hash of the arguments, the files, and the first and the last patch."""
    digest = hashlib.sha256()
    for name, file in zip(self.files, self._arrays, strict=True):
      place = os.path.relpath(name, self.path)
      digest.update(repr((place, file.layout)).encode())
    digest.update(repr((self._range, self._size)).encode())
    for i in (0, len(self) - 1):
      digest.update(self[i]['image'].tobytes())
    return f'arrays:{digest.hexdigest()[:16]}'

  def __getitem__(self, i: int) -> source.Element:
    """Returns patch i, float32 [S, S, C] in [-1, 1], with the label 0."""
    if not 0 <= i < len(self):
      raise IndexError(f'patch {i} of {len(self)}')
    number = bisect.bisect_right(self._starts, i)
    i -= self._starts[number - 1] if number else 0
    file = self._arrays[number]
    layout = file.layout
    rows, columns = self._grid(layout)
    page, place = divmod(i, rows * columns)
    y, x = (n * self._size for n in divmod(place, columns))
    height, width = self._size or layout.height, self._size or layout.width
    try:
      with self._lock:  # A file has one place at which it is read.
        band = file.rows(page, y, y + height)
    except ValueError as error:
      name = printable(self.files[number])
      raise DamagedFile(f'{name}: {error}.') from error
    found = stored_values.values(band[:, x : x + width], layout)
    unit = np.clip(self._ranges[number].to_unit(found), -1.0, 1.0)
    missing = np.isnan(unit)
    for c in np.flatnonzero(missing.any(axis=(0, 1))):
      unit[..., c] = missing_values.fill(unit[..., c], missing[..., c], 0.0)
    return source.element(unit, 0)

  def close(self) -> None:
    """Closes all files."""
    for file in self._arrays:
      file.close()


def _files(path):
  """Returns the paths of the arrays in a folder and below it, or of a file."""
  if os.path.isfile(path):
    return [path]
  if not os.path.isdir(path):
    raise ValueError(f'{path} does not exist; give arrays, or their folder.')
  suffixes = (*array_kinds.SUFFIXES, _NPZ)
  known = (*suffixes, *array_kinds.TIFF_SUFFIXES)
  listed = picture_files.list_pictures(path, also=suffixes).files
  names = [name for name in listed if name.lower().endswith(known)]
  if not names:
    raise ValueError(
      f'{path} is a folder without arrays; give .npy, .npz, TIFF or FITS files.'
    )
  return [os.path.join(path, name) for name in names]
