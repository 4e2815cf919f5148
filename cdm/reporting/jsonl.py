"""Files of lines, one JSON object each, that grow while work goes on.

A kill may tear off the last line: what follows the last newline is as none.
"""

import contextlib
import json
import pathlib

from cdm.distributed import collectives


def read(path):
  """-> [object, ...] of the whole lines; [] where there is no file."""
  path = pathlib.Path(path)
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def append(path, rows, *, allow_nan=True):
  """Adds a line per object after the last whole one.

  Raises:
    ValueError: a number that is not finite, where none is allowed.
    OSError: it cannot be written; the folder is not made.
  """
  lines = [json.dumps(row, allow_nan=allow_nan) + '\n' for row in rows]
  mend(path)
  with open(path, 'a') as file:
    file.write(''.join(lines))


def mend(path):
  """Cuts off what a kill left behind the last whole line."""
  path = pathlib.Path(path)
  if not path.exists() or not path.stat().st_size:
    return
  with open(path, 'rb+') as file:
    file.seek(-1, 2)
    if file.read(1) != b'\n':  # else nothing more need be read
      file.seek(0)
      file.truncate(file.read().rfind(b'\n') + 1)


class ResumableRows:
  """The rows of a long job, one line each, from which a killed job continues.

  Process 0 alone reads and writes the files, and every process holds the same
  rows, so the processes need no common disk. The constructor and every method
  are collectives: all processes call them in the same order.

  Attributes:
    rows: {key: row}, as JSON gives the rows back.
  """

  def __init__(self, path, key, *, merge=None, pattern=None, allow_nan=True):
    """Reads the rows that an earlier run of the job wrote.

    Args:
      path: file that rows are added to; its folder is made when needed.
      key: row -> what identifies the row, or None if another job wrote it and
        it is to be ignored. May raise ValueError to refuse the file.
      merge: (earlier row, later row of the same key) -> the row that counts;
        by default the later one counts.
      pattern: of the names of the files in this folder that are read; by
        default the file itself.
      allow_nan: whether a row may hold numbers that are not finite.
    """
    self.rows = {}
    self._path, self._key = pathlib.Path(path), key
    self._merge, self._allow_nan = merge, allow_nan
    self._pattern = pattern or self._path.name
    found = [row for file in self._files() for row in read(file)]
    self._add(collectives.gather_objects(found)[0])

  def missing(self, keys, is_complete=None):
    """Returns the keys that are still to be computed, the same everywhere.

    Args:
      keys: the keys of all rows of the job.
      is_complete: row -> whether a row that is there needs no new work, for
        rows with files beside them. Only process 0, whose disk counts, asks.
    """
    keys, absent = list(keys), []
    if collectives.is_first():
      absent = [
        position
        for position, key in enumerate(keys)
        if key not in self.rows
        or not (is_complete is None or is_complete(self.rows[key]))
      ]
    return [keys[i] for i in collectives.gather_objects(absent)[0]]

  def append(self, rows):
    """Adds the rows of all processes; each process gives those it computed.

    Of rows with one key, which several processes may give, the first counts.

    Raises:
      ValueError: a number that is not finite, where none is allowed.
      OSError: the file cannot be written.
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

  def remove(self):
    """Deletes the files, and their folder if nothing else is in it."""
    collectives.barrier('the last reader of the rows')
    for file in self._files():
      file.unlink()
    if collectives.is_first():
      with contextlib.suppress(OSError):  # It may hold something, or be absent.
        self._path.parent.rmdir()

  def _files(self):
    if not collectives.is_first():
      return []
    return sorted(self._path.parent.glob(self._pattern))

  def _add(self, rows):
    for row in rows:
      key = self._key(row)
      if self._merge and key in self.rows:
        row = self._merge(self.rows[key], row)
      if key is not None:
        self.rows[key] = row
