"""Shows a part of an enlarged picture at 1:1, beside what was given.

  given (pixels repeated) | bicubic | enlarged

The part is the one with the most detail. Its rows are kept as they are written,
so that a result of any size is compared without being read again.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cdm.data.photographs.photograph import Photograph
from cdm.data.printable_name import printable
from cdm.reporting import contact_sheet, image_files
from cdm.sampling import own_results, picture_rows
from cdm.sampling.enlarged_size import Size

SIDE = 360  # pixels of the part, at most
HEADS = ('given', 'bicubic', 'enlarged')


def path_of(target: pathlib.Path) -> pathlib.Path:
  """Returns the path of the comparison of a result.

  Args:
    target: path of the result.
  """
  return target.with_name(f'{target.stem}{image_files.COMPARED}')


def refuse_same_names(targets: Sequence[pathlib.Path]) -> None:
  """Raises ValueError if a comparison has the name of another file.

  Args:
    targets: paths of all results.
  """
  taken = {str(path).casefold(): path for path in targets}
  for target in targets:
    path = path_of(target)
    other = taken.setdefault(str(path).casefold(), target)
    if other != target:
      raise ValueError(
        f'--compare: {printable(path)} would be written for '
        f'{printable(target)}, and belongs to {printable(other)}; enlarge '
        'them into different folders.'
      )


class Part(NamedTuple):
  """A square part of a result.

  Attributes:
    top, left: its corner, in pixels of the result.
    side: of the square.
  """

  top: int
  left: int
  side: int


class Comparison:
  """Collects a part of a result while it is written."""

  def __init__(self, one: Photograph, size: Size):
    """Chooses the part.

    Args:
      one: the picture that is enlarged.
      size: what it becomes.
    """
    self._one, self._size = one, size
    self.part = part_of(one.samples, size)
    self._rows: list[np.ndarray] = []

  def watched(self, bands: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the rows of the result as they are, and keeps those of the part.

    Args:
      bands: [n, W, C], from the top to the bottom.
    """
    top, left, side = self.part
    first = 0
    for band in bands:
      inside = slice(max(0, top - first), max(0, top + side - first))
      self._rows.append(band[inside, left : left + side].copy())
      first += len(band)
      yield band

  def write(self, path: pathlib.Path, mark: str) -> None:
    """Writes the comparison as a PNG file.

    Args:
      path: path of the file.
      mark: see `own_results`.
    """
    top, left, side = self.part
    given = self._one.samples
    rows, columns = (
      (2 * np.arange(first, first + side) + 1) * n // (2 * whole)
      for first, n, whole in (
        (top, given.shape[0], self._size.height),
        (left, given.shape[1], self._size.width),
      )
    )
    enlarged = picture_rows.ResizedRows(
      picture_rows.WholePictures(given[None]),
      self._size.height,
      self._size.width,
      'bicubic',
    )
    smooth = enlarged.rows(top, top + side)[0, :, left : left + side]
    panes = [
      _of_8_bits(given[np.ix_(rows, columns)]),
      _of_8_bits(picture_rows.levels(smooth, np.uint8)),
      _of_8_bits(np.concatenate(self._rows)[..., : given.shape[-1]]),
    ]
    sheet = contact_sheet.sheet([panes], heads=HEADS)
    image_files.write_png(
      path, sheet, text={own_results.MARK: mark}, icc=self._one.carried.icc
    )


def part_of(samples: np.ndarray, size: Size) -> Part:
  """Returns the square part of a result whose neighbours differ most.

  Args:
    samples: what is enlarged, [h, w, C].
    size: what it becomes.
  """
  height, width = samples.shape[:2]
  side = min(SIDE, size.height, size.width)
  grey = samples.astype(np.float32).mean(axis=-1)
  detail = np.zeros_like(grey)
  detail[:-1] += np.abs(np.diff(grey, axis=0))
  detail[:, :-1] += np.abs(np.diff(grey, axis=1))
  # In pixels of what was given.
  square = [
    min(n, max(1, round(side * n / whole)))
    for n, whole in ((height, size.height), (width, size.width))
  ]
  total = ndimage.uniform_filter(detail, square, mode='constant')
  inside = total[
    square[0] // 2 : height - (square[0] - 1) // 2,
    square[1] // 2 : width - (square[1] - 1) // 2,
  ]
  y, x = np.unravel_index(int(inside.argmax()), inside.shape)
  return Part(
    min(round(int(y) * size.height / height), size.height - side),
    min(round(int(x) * size.width / width), size.width - side),
    side,
  )


def _of_8_bits(samples):
  """Returns uint8 [h, w, 3]."""
  if samples.dtype == np.uint16:
    samples = np.round(samples / 257.0).astype(np.uint8)
  return np.broadcast_to(samples, (*samples.shape[:2], 3))
