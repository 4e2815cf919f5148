"""Keeps a record of JSON lines in parts, none of which grows without end.

NAME.jsonl is the newest part. When it has `MOST_BYTES`, it gets the name
NAME.0001.jsonl, NAME.0002.jsonl and so on, and the next line begins a new one.
Object storage that is mounted as a folder shows a file once it is closed, and
writes the whole of it again when a line is added. So the newest part is closed
every few seconds, and is small; and a run that starts reads only the parts
after its checkpoint.
"""

import contextlib
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import IO, Any

from cdm.data.files import atomic_files
from cdm.reporting import jsonl

MOST_BYTES = 2**20
CLOSE_S = 30.0  # what is written is seen by others after this time


def parts(path: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the parts of a record that exist, the oldest first.

  Args:
    path: path of the newest part, NAME.jsonl.
  """
  path = pathlib.Path(path)
  older = re.compile(
    rf'{re.escape(path.stem)}\.(\d{{4,}}){re.escape(path.suffix)}'
  )
  names = os.listdir(path.parent) if path.parent.is_dir() else []
  numbers = sorted(int(m[1]) for m in map(older.fullmatch, names) if m)
  found = [_older(path, number) for number in numbers]
  return [*found, path] if path.name in names else found


def read(path: str | os.PathLike, declared: Any) -> list[dict[str, Any]]:
  """Returns the lines of all parts, see `jsonl.read`.

  Args:
    path: path of the newest part.
    declared: type of every line.
  """
  return [row for part in parts(path) for row in jsonl.read(part, declared)]


def read_since(
  path: str | os.PathLike, declared: Any, step: int
) -> list[dict[str, Any]]:
  """Returns the lines from a step on; parts that end before are not read.

  Args:
    path: path of the newest part.
    declared: type of every line, which has a 'step' that never falls.
    step: number of the step.
  """
  found: list[dict[str, Any]] = []
  for part in reversed(parts(path)):
    rows = jsonl.read(part, declared)
    found[:0] = [row for row in rows if row['step'] >= step]
    if any(row['step'] < step for row in rows):
      break
  return found


class RecordParts:
  """Adds lines to a record, and cuts it back; for the process that writes it.

  Use `close` at the end.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Opens the newest part, so that one that cannot be written is known.

    Args:
      path: path of the newest part, in a folder that exists.
      clock: returns seconds.

    Raises:
      OSError: it cannot be written.
    """
    self._path, self._clock = pathlib.Path(path), clock
    self._file: IO[str] | None = None
    self._size: int | None = None  # bytes of whole lines, once it is opened
    self._remove_copy()
    jsonl.remove_incomplete_line(path)
    self._open()

  def write(self, line: str) -> None:
    """Adds a line, which ends in a newline.

    It reaches the kernel at once, so a kill of this process loses no line.
    After an error the same line can be written again: what was written of it
    is removed then.
    """
    try:
      file = self._open()
      file.write(line)
      size = os.fstat(file.fileno()).st_size
      if size >= MOST_BYTES:
        self._begin_another()
        size = 0
      elif self._clock() - self._opened >= CLOSE_S:
        self.close()
    except OSError:
      with contextlib.suppress(OSError):
        self.close()
      raise
    self._size = size

  def close(self) -> None:
    """Closes the newest part; a later line opens it again."""
    if self._file is not None:
      file, self._file = self._file, None
      file.close()

  def cut(
    self, step: int, declared: Any, line: Callable[[dict[str, Any]], str]
  ) -> None:
    """Removes the lines after a step, and lines that are damaged.

    Parts whose lines all come before are neither read nor changed.

    Args:
      step: number of the step.
      declared: type of every line, which has a 'step' that never falls.
      line: returns the line of a row.
    """
    self.close()
    self._size = None
    for part in reversed(parts(self._path)):
      kept = [r for r in jsonl.read(part, declared) if r['step'] <= step]
      if kept or part == self._path:
        atomic_files.write_text_atomically(part, ''.join(map(line, kept)))
      else:
        part.unlink()
      if kept:
        break

  def _remove_copy(self) -> None:
    """Removes the newest part where it is still there under both names.

    Object storage renames by copying and deleting, and a kill may come between.
    """
    *_, older, newest = [None, None, *parts(self._path)]
    if older is None or newest != self._path:
      return
    with open(older, 'rb') as one, open(newest, 'rb') as other:
      first = other.readline()
      copied = first != b'' and one.readline() == first
    if copied:
      newest.unlink()

  def _open(self) -> IO[str]:
    if self._file is None:
      file = open(self._path, 'a', buffering=1, encoding='utf-8')
      size = os.fstat(file.fileno()).st_size
      if self._size is None:
        self._size = size
      elif size > self._size:
        file.truncate(self._size)
      self._file, self._opened = file, self._clock()
    return self._file

  def _begin_another(self) -> None:
    self.close()
    last = [part for part in parts(self._path) if part != self._path][-1:]
    number = int(last[0].stem.rpartition('.')[2]) if last else 0
    atomic_files.rename(self._path, _older(self._path, number + 1))


def _older(path, number):
  return path.with_name(f'{path.stem}.{number:04d}{path.suffix}')
