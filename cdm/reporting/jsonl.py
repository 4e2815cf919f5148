"""Reads and appends JSON lines; continues long jobs from the rows on disk.

A kill in the middle of a write may leave an incomplete last line. Everything
after the last newline is therefore ignored, and the next write removes it. Any
other line that is damaged is named in a warning and left out.
"""

import contextlib
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from cdm.data.files import damaged_file, json_file, storage_retry
from cdm.distributed import collectives

# How often the processes of a long job exchange the rows that they computed,
# and after how many batches at the latest.
EXCHANGE_SECONDS = 60.0
MOST_CALLS = 10_000
MOST_NAMED = 3  # damaged lines of one file that a warning names each

_log = logging.getLogger(__name__)


def read(path: str | os.PathLike, declared: Any = Any) -> list[Any]:
  """Returns the objects of all complete lines; an empty list without a file.

  Lines that are empty are skipped. Lines that are not JSON or not of the
  declared type are skipped too, and named in a warning.

  Args:
    path: path of the file.
    declared: type of every row, see `json_file.problem`.

  Raises:
    OSError: if the file cannot be read.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  rows, damaged = [], []
  with open(path, 'rb') as file:
    for number, line in enumerate(file, start=1):
      if not line.endswith(b'\n') or not line.strip():
        continue
      try:
        row = json_file.parse(
          line,
          declared,
          name=f'{path}, line {number},',
          remedy='The line is left out.',
        )
      except damaged_file.DamagedFile as error:
        damaged.append(str(error))
      else:
        rows.append(row)
  for text in damaged[:MOST_NAMED]:
    _log.warning('%s', text)
  if len(damaged) > MOST_NAMED:
    _log.warning(
      '%s: %d damaged lines are left out in all.', path, len(damaged)
    )
  return rows


def append(
  path: str | os.PathLike,
  rows: Iterable[Any],
  *,
  allow_nan: bool = True,
  seconds: float | None = None,
) -> None:
  """Adds one line per object after the last complete line.

  Args:
    path: path of the file, which is created if needed; its folder is not.
    rows: the objects.
    allow_nan: whether a row may hold numbers that are not finite.
    seconds: for how long a write that fails is tried again, see
      `storage_retry.retried`.

  Raises:
    ValueError: if a number is not finite and `allow_nan` is False.
    OSError: if the file cannot be written. It is tried again while the error
      may pass, see `storage_retry`.
  """
  lines = [json.dumps(row, allow_nan=allow_nan) + '\n' for row in rows]
  path, before = pathlib.Path(path), []

  def write() -> None:
    remove_incomplete_line(path)
    size = path.stat().st_size if path.exists() else 0
    before.append(size)
    if size > before[0]:  # of an attempt that failed half-way
      os.truncate(path, before[0])
    with open(path, 'a', encoding='utf-8') as file:
      file.write(''.join(lines))

  storage_retry.retried(write, f'Writing {path}', seconds=seconds)


def remove_incomplete_line(path: str | os.PathLike) -> None:
  """Removes an incomplete last line, which a kill may have left."""
  path = pathlib.Path(path)
  if not path.exists() or not path.stat().st_size:
    return
  with open(path, 'rb+') as file:
    file.seek(-1, 2)
    # Most files end with a newline, and the rest of them need not be read.
    if file.read(1) != b'\n':
      file.seek(0)
      file.truncate(file.read().rfind(b'\n') + 1)


class ResumableRows:
  """The rows of a long job, one line each, from which a killed job continues.

  Only process 0 reads and writes the files, and every process holds the same
  rows, so the processes need no shared disk. The constructor and every method
  are collectives: all processes call them in the same order.

  Attributes:
    rows: {key: row}, with the rows as JSON returns them.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    key: Callable[[Any], Hashable],
    *,
    declared: Any = Any,
    merge: Callable[[Any, Any], Any] | None = None,
    pattern: str | None = None,
    allow_nan: bool = True,
  ):
    """Reads the rows that an earlier run of the job wrote.

    Args:
      path: file that rows are added to; its folder is made when needed.
      key: `key(row)` returns what identifies a row, or None to ignore a row
        that another job wrote. It may raise ValueError to refuse the file.
      merge: `merge(earlier, later)` combines two rows of the same key into the
        one that counts; by default the later one counts.
      pattern: glob pattern of the files to read in this folder; by default only
        the file itself is read.
      allow_nan: whether a row may hold numbers that are not finite.
    """
    self.rows: dict[Any, Any] = {}
    self._path, self._key = pathlib.Path(path), key
    self._merge, self._allow_nan = merge, allow_nan
    self._pattern = pattern or self._path.name
    rows = [row for file in self._files() for row in read(file, declared)]
    self._add(collectives.broadcast_object(rows))
    # What `add` has been given, and when the processes exchange it next.
    self._waiting: list[Any] = []
    self._given = self._exchanged = 0
    self._next, self._since = 1, time.monotonic()

  def missing(
    self,
    keys: Iterable[Any],
    is_complete: Callable[[Any], bool] | None = None,
  ) -> list[Any]:
    """Returns the keys still to be computed, the same list in every process.

    Args:
      keys: the keys of all rows of the job.
      is_complete: `is_complete(row)` returns whether an existing row needs no
        new work, for jobs that write further files for each row. Only process
        0, which reads the files, calls it.
    """
    keys, absent = list(keys), []
    if collectives.is_first():
      absent = [
        position
        for position, key in enumerate(keys)
        if key not in self.rows
        or not (is_complete is None or is_complete(self.rows[key]))
      ]
    return [keys[i] for i in collectives.broadcast_object(absent)]

  def add(self, rows: list[Any]) -> None:
    """Adds rows of all processes, which several exchange now and then only.

    One process writes them at once. Several exchange theirs about every
    `EXCHANGE_SECONDS`, after the same call in all; the clock of process 0
    decides. A kill loses what was not exchanged. `flush` exchanges the rest.

    Args:
      rows: see `append`.
    """
    self._waiting += rows
    self._given += 1
    if self._given >= self._next:
      self.flush()

  def flush(self) -> None:
    """Exchanges and writes what `add` was given and has not been written."""
    now, calls = time.monotonic(), self._given - self._exchanged
    ahead = 1
    if collectives.process_count() > 1 and calls:
      each = max((now - self._since) / calls, 1e-6)
      ahead = min(max(int(EXCHANGE_SECONDS / each), 1), MOST_CALLS)
      ahead = int(collectives.broadcast_from_first(ahead))
    self.append(self._waiting)
    self._waiting, self._exchanged = [], self._given
    self._next, self._since = self._given + ahead, now

  def append(self, rows: list[Any]) -> None:
    """Adds the rows of all processes, and writes them at once.

    Args:
      rows: the rows that this process computed. If several processes pass rows
        with the same key, the row of the lowest process index counts.

    Raises:
      ValueError: if a number is not finite and `allow_nan` is False.
      OSError: if the file cannot be written.
    """
    text = json.dumps(rows, allow_nan=self._allow_nan)
    added = {}
    for part in collectives.gather_objects(json.loads(text)):
      for row in part:
        added.setdefault(self._key(row), row)
    if added and collectives.is_first():
      self._path.parent.mkdir(parents=True, exist_ok=True)
      append(self._path, added.values())
    self._add(added.values())

  def remove(self) -> None:
    """Deletes the files, and their folder if nothing else is in it."""
    collectives.barrier('the last reader of the rows')
    for file in self._files():
      file.unlink()
    if collectives.is_first():
      with contextlib.suppress(OSError):  # The folder is not empty, or absent.
        self._path.parent.rmdir()

  def _files(self) -> list[pathlib.Path]:
    if not collectives.is_first():
      return []
    return sorted(self._path.parent.glob(self._pattern))

  def _add(self, rows: Iterable[Any]) -> None:
    for row in rows:
      key = self._key(row)
      if self._merge and key in self.rows:
        row = self._merge(self.rows[key], row)
      if key is not None:
        self.rows[key] = row
