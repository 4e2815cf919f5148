"""Says how far a task of the worker is, and ends it where it is cancelled."""

import json
import threading
from typing import IO, Any


class Cancelled(Exception):
  """The task is not wanted any more."""


class Speaker:
  """Writes messages, a line each."""

  def __init__(self, file: IO[str]):
    """Speaks to a file."""
    self._file, self._lock = file, threading.Lock()

  def __call__(self, message: dict[str, Any]) -> None:
    """Says one."""
    with self._lock:
      self._file.write(json.dumps(message) + '\n')
      self._file.flush()


class Report:
  """Says how far a task is, and ends it if it is cancelled."""

  def __init__(self, speak: Speaker, number: int, cancelled: set[int]):
    """Reports of one task."""
    self._speak, self._number, self._cancelled = speak, number, cancelled
    self._done = 0

  def advance(self, count: int, total: int) -> None:
    """Says that so many more windows are done.

    Raises:
      Cancelled: it is.
    """
    self._done += count
    self._speak({
      'number': self._number, 'progress': [min(self._done, total), total]
    })  # fmt: skip
    self.check()

  def found(self, found: dict[str, Any]) -> None:
    """Says what is finished so far."""
    self._speak({'number': self._number, 'found': found})
    self.check()

  def check(self) -> None:
    """Raises Cancelled if the task is."""
    if self._number in self._cancelled:
      raise Cancelled
