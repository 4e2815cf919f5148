"""Keeps the low-res versions of all images of a data set on disk, in blocks.

A million images of 64 pixels are 15 GB, and decoding their originals takes an
hour. So they are made once, in a folder of the user's cache that is named after
all that they depend on, and read block by block. Every process makes and reads
the rows that its own devices search. What a killed process has made stays.
"""

import concurrent.futures
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from cdm.data import transforms
from cdm.data.files import atomic_files, damaged_file
from cdm.distributed import user_cache
from cdm.reporting import progress

CACHE = 'low_res_images'
THREADS = 16  # As many reads wait for storage at once as in training.
SHRUNK_AT_ONCE = 64
# The first byte of a row.
ABSENT, THERE, UNREADABLE = 0, 1, 2

_log = logging.getLogger(__name__)


class Images(NamedTuple):
  """The images of a data set, and how they are shrunk.

  Attributes:
    count: number of images.
    read: index -> uint8 [H, W, 3], or None if the image is left out; raises
      `transforms.BadImage` if it cannot be read.
    shrink: uint8 [B, H, W, 3] -> uint8 [B, h, w, 3].
    size: h = w.
    depends_on: JSON-able text of all that the low-res images depend on.
    max_skip_fraction: the largest share of images that may be unreadable.
  """

  count: int
  read: Callable[[int], np.ndarray | None]
  shrink: Callable[[np.ndarray], jax.Array]
  size: int
  depends_on: object
  max_skip_fraction: float


class ShrunkImages:
  """The low-res images of one process, on disk."""

  def __init__(self, images: Images, rows: np.ndarray, block: int):
    """Finds or makes them.

    Args:
      images: the data set.
      rows: int [b], the rows of every block that this process searches,
        ascending.
      block: images of a block, over all processes.

    Raises:
      OSError: no folder has room for them.
      ValueError: too many images are unreadable.
    """
    self._images, self._rows, self._block = images, rows, block
    self._bytes = 1 + 3 * images.size**2  # of a row
    key = [images.depends_on, images.size, block, self._rows.tolist()]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    blocks = -(-images.count // block)
    needed = blocks * len(self._rows) * self._bytes
    cache = user_cache.find(CACHE, name) or (
      user_cache.folder(CACHE, free=needed) / name
    )
    cache.mkdir(exist_ok=True)
    self._paths = [cache / f'{first:09d}.npy' for first in self._firsts()]
    self._make([path for path in self._paths if not self._is_whole(path)])

  def _firsts(self) -> range:
    return range(0, self._images.count, self._block)

  def _is_whole(self, path: pathlib.Path) -> bool:
    try:
      found = np.load(path, mmap_mode='r')
    except (OSError, ValueError, EOFError):
      return False
    return found.shape == (len(self._rows), self._bytes)

  def _make(self, missing: list[pathlib.Path]) -> None:
    """Makes the blocks that are not there, and counts unreadable images."""
    total = sum(len(self._numbers(path)) for path in self._paths)
    left = sum(len(self._numbers(path)) for path in missing)
    first_error = None
    with (
      progress.Progress(
        'shrinking the training images', total=total, initial=total - left
      ) as bar,
      concurrent.futures.ThreadPoolExecutor(THREADS) as threads,
    ):
      for path in missing:
        block = np.zeros((len(self._rows), self._bytes), np.uint8)
        numbers = self._numbers(path)
        for start in range(0, len(numbers), SHRUNK_AT_ONCE):
          part = numbers[start : start + SHRUNK_AT_ONCE]
          found = list(threads.map(self._read, part))
          errors = [x for x in found if isinstance(x, transforms.BadImage)]
          first_error = first_error or (errors[0] if errors else None)
          self._fill(block[start : start + len(part)], found)
          bar.advance(len(part))
        with atomic_files.write_atomically(path) as partial:
          with open(partial, 'wb') as file:
            np.save(file, block)
    bad = sum(
      int((np.load(path, mmap_mode='r')[:, 0] == UNREADABLE).sum())
      for path in self._paths
    )
    if bad > self._images.max_skip_fraction * total:
      text = (
        f'config.train_data: {bad} of {total} images cannot be read, more than '
        f'pipeline.max_skip_fraction = {self._images.max_skip_fraction} '
        f'allows. Repair them, or allow more.'
      )
      if first_error is None:
        raise ValueError(text)
      raise damaged_file.reworded(
        first_error, f'{text} The first: {first_error}'
      ) from first_error

  def _numbers(self, path: pathlib.Path) -> np.ndarray:
    """Returns the numbers of the images of a block of this process."""
    numbers = int(path.stem) + self._rows
    return numbers[numbers < self._images.count]

  def _read(self, number):
    try:
      return self._images.read(int(number))
    except transforms.BadImage as error:
      _log.warning('warning: %s is left out', error)
      return error

  def _fill(self, rows: np.ndarray, found: list) -> None:
    """Writes low-res images and their first bytes into rows of a block."""
    there = [i for i, x in enumerate(found) if isinstance(x, np.ndarray)]
    for i, x in enumerate(found):
      if isinstance(x, transforms.BadImage):
        rows[i, 0] = UNREADABLE
    if there:
      # One size is compiled.
      filled = [found[there[i % len(there)]] for i in range(SHRUNK_AT_ONCE)]
      small = np.asarray(self._images.shrink(np.stack(filled)))
      rows[there, 0] = THERE
      rows[there, 1:] = small[: len(there)].reshape(len(there), -1)

  def blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (number of the first image, images, there) of every block.

    images are this process's rows of the block, uint8 [b, 3 h w]; there is bool
    [b], which of them are images.
    """
    for first, path in zip(self._firsts(), self._paths, strict=True):
      rows = np.load(path, mmap_mode='r')
      yield first, np.ascontiguousarray(rows[:, 1:]), rows[:, 0] == THERE
