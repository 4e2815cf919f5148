"""Saves partial results, so that a killed evaluation can be continued.

Every process writes files of its own, named after the number of batches whose
results they hold. The last two files are kept, because a kill may come when
only some of the processes have written the newest one. A damaged file, for
example after a power cut, is ignored.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Callable, Generator, Hashable, Mapping
from typing import Any

import numpy as np

from cdm.data import npz_arrays
from cdm.data.files import atomic_files, damaged_file
from cdm.distributed import collectives, folder_lock, user_cache
from cdm.reporting import jsonl, output_files

KEPT = 2  # files per process

_log = logging.getLogger(__name__)


def digest(settings: object) -> str:
  """Returns 32 hex digits that identify JSON-able settings."""
  text = json.dumps(settings, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def image_rows(
  home: str | os.PathLike,
  settings: object,
  *,
  prefix: str = '',
  declared: Any = list[int],
) -> jsonl.ResumableRows:
  """Opens rows of the form `[index of an image, ...]`, keyed by the index.

  Args:
    home: folder in which these rows get a folder of their own.
    settings: JSON-able; everything that the rows depend on.
    prefix: prefix of the name of their own folder.
    declared: type of every row, see `json_file.problem`.
  """
  folder = pathlib.Path(home) / f'{prefix}{digest(settings)}'
  return HeldRows(
    folder / 'process-0.jsonl',
    lambda row: row[0] if row else None,
    declared=declared,
    # Earlier versions wrote one file per process, which are still read.
    pattern='process-*.jsonl',
  )


@contextlib.contextmanager
def hold_folder(folder: str | os.PathLike) -> Generator[None]:
  """Context manager: this run alone uses a folder of partial results.

  Where the folder cannot be written, a warning says that nothing is kept.

  Raises:
    folder_lock.FolderInUse: another run uses it.
  """
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(folder_lock.hold(folder, 'cdm evaluate'))
    except OSError as error:
      user_cache.warn(f'partial results are not kept: {error}')
    yield


class HeldRows(jsonl.ResumableRows):
  """Rows in a folder of their own, which one run holds until `remove`."""

  def __init__(
    self,
    path: pathlib.Path,
    key: Callable[[Any], Hashable],
    pattern: str,
    declared: Any,
  ):
    self._lock = folder_lock.hold_until_end(path.parent, 'cdm evaluate')
    super().__init__(path, key, declared=declared, pattern=pattern)

  def remove(self) -> None:
    """Removes the rows and gives the folder back."""
    super().remove()
    self._lock.release(entirely=True)


class PartialResults:
  """The partial results of one set, in a folder that the caller holds."""

  def __init__(self, folder: str | os.PathLike):
    """Names the folder; nothing is read or written yet.

    Args:
      folder: folder for this set and these metrics alone; it is created by the
        first `write`.
    """
    self._folder = pathlib.Path(folder)
    self._index = None
    self._own: list[int] | None = None  # see `_parts`

  def newest(self) -> tuple[int, dict[str, np.ndarray]]:
    """Returns the newest partial results that every process has.

    This is a collective: all processes call it together.

    Returns:
      (number of batches, arrays that this process wrote after them); (0, {})
      if there are no such results.
    """
    counts = [n for n in sorted(self._parts()) if _is_whole(self._path(n))]
    common = set.intersection(*map(set, collectives.gather_objects(counts)))
    if not common:
      return 0, {}
    done = max(common)
    return done, npz_arrays.read(self._path(done))

  def write(self, done: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Saves the partial results of the first `done` batches.

    Where they cannot be written, a warning says so and earlier files are left
    as they were: the evaluation goes on, and a kill loses more of it.

    Args:
      done: number of batches.
      arrays: {name: array}, the results of this process.
    """
    path = self._path(done)
    named: dict[str, Any] = dict(arrays)
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      with output_files.write_result(path) as part, open(part, 'wb') as file:
        np.savez(file, **named)
    except OSError as error:
      why = getattr(error.__cause__ or error, 'strerror', None) or error
      user_cache.warn(
        f'{self._folder}: partial results cannot be written ({why}); a kill '
        'loses what follows.'
      )
      return
    own = sorted({*self._parts(), done})
    for old in own[:-KEPT]:
      self._path(old).unlink(missing_ok=True)
    self._own = own[-KEPT:]

  def remove(self) -> None:
    """Deletes the files of every process, once the result is complete.

    This is a collective: all processes call it together.
    """
    collectives.barrier('the removal of partial results')
    try:
      with hold_folder(self._folder):
        for done in self._parts():
          self._path(done).unlink(missing_ok=True)
        atomic_files.remove_abandoned(self._folder)
        collectives.barrier('the last deletion')
    except folder_lock.FolderInUse:
      return  # Another run continues from these results, and deletes them.
    with contextlib.suppress(OSError):  # It holds something else, too.
      self._folder.rmdir()

  def _path(self, done: int) -> pathlib.Path:
    return self._folder / f'process-{self._number()}-batches-{done}.npz'

  def _parts(self) -> list[int]:
    """Returns the numbers of batches in the names of this process's files.

    The folder holds files of every process, so it is listed once.
    """
    if self._own is None:
      pattern = rf'process-{self._number()}-batches-(\d+)\.npz'
      names = []
      if self._folder.is_dir():
        names = [path.name for path in self._folder.iterdir()]
      matches = (re.fullmatch(pattern, name) for name in names)
      self._own = [int(match[1]) for match in matches if match]
    return self._own

  def _number(self) -> int:
    """Returns the index of this process."""
    if self._index is None:
      import jax

      self._index = jax.process_index()
    return self._index


def _is_whole(path: pathlib.Path) -> bool:
  """Returns whether every array of an .npz can be read, by its checksum."""
  try:
    npz_arrays.read(path)
  except damaged_file.DamagedFile as error:
    _log.warning('%s It is left out.', error)
    return False
  return True
