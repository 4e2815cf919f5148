"""Writes, checks and reads the numbered PNGs of an output folder.

Their names are those of `data.numbered_names`. Earlier versions kept all images
in one folder; an output folder that they began stays as it is.
"""

import collections
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent import futures

import numpy as np

from cdm.data import image_decoder, numbered_names, png_chunks
from cdm.data.files import atomic_files, transient_errors
from cdm.distributed import collectives
from cdm.reporting import image_files

READERS = 16  # threads; object storage answers a read after 20 to 50 ms
AHEAD = 64  # images that are read before they are needed


class NumberedImages:
  """The numbered images of some folders, such as one for each stage.

  Attributes:
    folders: the folders.
    flat: whether all images of a folder lie in itself.
  """

  def __init__(self, folders: Sequence[pathlib.Path]):
    """Looks how the images are kept; nothing is written.

    A collective: every process must call it.

    Args:
      folders: folders of the images, which need not exist.
    """
    self.folders = list(folders)
    self.flat = bool(
      collectives.call_in_first(lambda: any(map(_is_flat, folders)))
    )
    self._made: set[pathlib.Path] = set()

  def path(self, folder: pathlib.Path, n: int) -> pathlib.Path:
    """Returns the path of image n in one of the folders."""
    if self.flat:
      return folder / numbered_names.file_name(n)
    return folder / numbered_names.relative_name(n)

  def write(self, folder: pathlib.Path, n: int, image: np.ndarray) -> None:
    """Writes image n, uint8 [H, W, 3], to one of the folders."""
    path = self.path(folder, n)
    if path.parent not in self._made:
      path.parent.mkdir(parents=True, exist_ok=True)
      self._made.add(path.parent)
    image_files.write_png(path, image)

  def missing(self, count: int) -> list[int]:
    """Returns the numbers below `count` whose image some folder lacks.

    An image that is cut off or damaged, as a crash of the machine leaves it, is
    missing too; it is said, and written again. Every process looks at some
    thousands of the images, and all get the same list: a collective.

    Args:
      count: number of images of every folder.
    """
    each = numbered_names.PER_FOLDER
    firsts = [n * each for n in collectives.local_indices(-(-count // each))]
    absent: list[int] = []
    damaged: list[str] = []
    with futures.ThreadPoolExecutor(READERS) as pool:
      for first in firsts:
        numbers = range(first, min(first + each, count))
        found = self._look_at(numbers, pool)
        absent += found[0]
        damaged += found[1]
    parts = collectives.gather_objects(
      [_to_ranges(absent), len(damaged), damaged[:1]]
    )
    broken = sum(part[1] for part in parts)
    if broken and collectives.is_first():
      print(
        'Made again, because they are cut off or damaged: '
        f'{broken} image files; the first: '
        f'{next(part[2][0] for part in parts if part[2])}.'
      )
    return sorted(n for part in parts for ends in part[0] for n in range(*ends))

  def _look_at(
    self, numbers: range, pool: futures.Executor
  ) -> tuple[list[int], list[str]]:
    """Returns the numbers of missing images, and the paths of damaged ones."""
    whole, damaged = np.ones(len(numbers), bool), []
    for folder in self.folders:
      paths = [self.path(folder, n) for n in numbers]
      there = {path.name for path in paths}
      if not self.flat or not numbers.start:
        atomic_files.remove_abandoned(paths[0].parent)
      # A flat folder is not listed, because its list has all images.
      if not self.flat:
        there = _names(paths[0].parent)
      found = pool.map(
        lambda path, names=there: path.name in names and is_whole(path), paths
      )
      for i, (path, good) in enumerate(zip(paths, found, strict=True)):
        if not good and path.name in there and path.exists():
          damaged.append(str(path))
        whole[i] &= good
    return [
      n for n, good in zip(numbers, whole, strict=True) if not good
    ], damaged

  def read_all(self, folder: pathlib.Path, count: int) -> Iterator[np.ndarray]:
    """Yields images 0 to count - 1 of a folder; several are read at once."""
    with futures.ThreadPoolExecutor(READERS) as pool:
      ahead: collections.deque[futures.Future[np.ndarray]] = collections.deque()
      for n in range(count):
        path = self.path(folder, n)
        ahead.append(pool.submit(image_decoder.read_pixels, path))
        if len(ahead) > AHEAD:
          yield ahead.popleft().result()
      while ahead:
        yield ahead.popleft().result()


def is_whole(path: pathlib.Path) -> bool:
  """Returns whether a PNG is there and complete, with sound checksums."""
  try:
    return png_chunks.is_whole(path.read_bytes())
  except OSError as error:
    if transient_errors.not_of_the_file(error):
      raise
    return False


def _names(folder: pathlib.Path) -> set[str]:
  """Returns the names in a folder, which may be missing."""
  try:
    return set(os.listdir(folder))
  except OSError as error:
    if transient_errors.not_of_the_file(error):
      raise
    return set()


def _is_flat(folder: pathlib.Path) -> bool:
  """Returns whether images of further thousands lie in the folder itself."""
  numbers = map(numbered_names.number, _names(folder))
  return any(n is not None and numbered_names.folder_name(n) for n in numbers)


def _to_ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
  """Returns ascending numbers as [(first, one after the last), ...]."""
  ranges: list[tuple[int, int]] = []
  for n in numbers:
    if ranges and ranges[-1][1] == n:
      ranges[-1] = ranges[-1][0], n + 1
    else:
      ranges.append((n, n + 1))
  return ranges
