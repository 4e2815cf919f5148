"""Reads the points of faces, such as their eyes, from a file beside them.

It has the layout of CelebA's list_landmarks_align_celeba.txt:

  202599
  lefteye_x lefteye_y righteye_x righteye_y nose_x ...
  000001.jpg 69 109 106 113 77 ...

where the count may be absent, or that of its copies in CSV, whose header begins
with the name of the column of file names.
"""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cdm.data import list_file, picture_names
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

_REMEDY = (
  "Give a file with a header 'lefteye_x lefteye_y ...' and lines 'NAME X Y "
  "...', as list_landmarks_align_celeba.txt, or the same as CSV."
)


class Landmarks(NamedTuple):
  """The points of every picture.

  Attributes:
    names: K names of points, such as 'lefteye', in sorted order.
    points: float32 [N, K, 2] (x, y), in pixels of each picture.
    size: (width, height) of the pictures in whose pixels they lie; None for
      those of each picture as it is stored.
  """

  names: tuple[str, ...]
  points: np.ndarray
  size: tuple[int, int] | None = None

  def of(self, i: int) -> np.ndarray:
    """Returns the points of picture i, [K, 2]."""
    return self.points[i]

  def outermost(self) -> list[int]:
    """Returns the pictures with the largest x and the largest y.

    None for points that were found by a program, as those of FFHQ: of some
    faces it puts one outside of the picture.
    """
    if self.size is not None:
      return []
    return [int(i) for i in self.points.max(axis=1).argmax(axis=0)]


def read(path: str | os.PathLike[str], files: Sequence[str]) -> Landmarks:
  """Returns the points that a file gives to every picture.

  Args:
    path: the file. It may have lines of other pictures too.
    files: the paths of the pictures, with forward slashes.

  Raises:
    DamagedFile: the file is damaged.
    ValueError: a picture has no line or several; or a point is not in any
      picture.
  """
  listing = f'the landmark file {printable(os.fspath(path))}'
  lines = list_file.read_lines(path, _REMEDY)
  count = None
  if lines[0][1].strip().isdecimal():
    count = int(lines.pop(0)[1])
  header = lines.pop(0)[1] if lines else ''
  comma = ',' if ',' in header else None
  words = [word.strip() for word in header.split(comma)]
  names = names_of(words[1:] if comma else words)
  if not names:
    raise ValueError(
      f'The header of {listing} is {printable(header)[:80]!r}, which names no '
      f'points. {_REMEDY}'
    )
  if count not in (None, len(lines)):
    raise DamagedFile(
      f'{listing} says that it has {count:,} lines, and has {len(lines):,}. '
      'Fetch it once more.'
    )
  rows = [
    (number, *_parse(number, text, comma, 2 * len(names), listing))
    for number, text in lines
  ]
  given = [(number, name) for number, name, _ in rows]
  table = picture_names.table(files, (name for _, name in given))
  if table is None:
    # CelebA's pictures are also distributed as PNG, and its list says .jpg.
    given = [(number, os.path.splitext(name)[0]) for number, name in given]
    table = picture_names.table(files, (name for _, name in given))
  chosen = picture_names.lines_of(files, table, given, listing, others=True)
  points = np.array([rows[n][2] for n in chosen], np.float32)
  outside = np.flatnonzero(points.min(axis=1) < 0)
  if len(outside):
    i = outside[0]
    raise ValueError(
      f'Line {rows[chosen[i]][0]} of {listing} has a point at '
      f'{points[i].min():g}, which is outside of {printable(files[i])}. '
      'Correct it, or leave out the picture.'
    )
  by_name = sorted(range(len(names)), key=names.__getitem__)
  points = points.reshape(len(files), -1, 2)[:, by_name]
  return Landmarks(tuple(names[k] for k in by_name), points)


def names_of(columns: Sequence[str]) -> tuple[str, ...]:
  """Returns the names of the points whose coordinates are in columns.

  Args:
    columns: NAME_x and NAME_y of every point, in turn.

  Returns:
    The names; none if the columns are other ones.
  """
  names = tuple(word[:-2] for word in columns[::2])
  pairs = [word for name in names for word in (f'{name}_x', f'{name}_y')]
  if [word.lower() for word in columns] != [word.lower() for word in pairs]:
    return ()
  return names


def _parse(number, text, comma, count, listing):
  """Returns (name of the picture, its `count` coordinates)."""
  cells = [cell.strip() for cell in text.strip().split(comma)]
  try:
    values = [float(cell) for cell in cells[1:]]
  except ValueError:
    values = []
  if len(values) != count or not all(map(math.isfinite, values)):
    raise DamagedFile(
      f'Line {number} of {listing} is {printable(text.strip())[:80]!r}; a name '
      f'and {count} numbers are expected. Give every picture all its points.'
    )
  return cells[0], values
