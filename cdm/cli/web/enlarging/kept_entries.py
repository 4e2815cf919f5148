"""Keeps what users gave and got: in memory, with files in one folder.

An entry is a picture that is enlarged, or a draw of a cascade. Nobody finds it
without its key, which is random and never a name of the user's. It goes when
the user removes it, or when nothing was done with it for a while.
"""

import pathlib
import re
import secrets
import shutil
import stat
import threading
import time
import unicodedata
from collections.abc import Callable
from typing import Any

from cdm.cli.web.enlarging import task_queue
from cdm.cli.web.enlarging.serving_limits import ServingLimits
from cdm.cli.web.enlarging.task_queue import Task, TaskQueue

KEY = re.compile(r'[A-Za-z0-9_-]{22}')  # of `secrets.token_urlsafe(16)`
ORIGINAL = 'original'
MEDIA = re.compile(r'[a-z0-9-]{1,80}\.png')
_NAME_LENGTH = 120


class Entry:
  """A picture, or a draw.

  Attributes:
    key: its secret.
    name: what the user calls it, for the user's eyes and for downloads alone.
    folder: its files.
    found: what the worker has found, by the names that the page knows.
    tasks: those of it, in their order.
    version: grows with every change.
  """

  def __init__(self, key: str, name: str, folder: pathlib.Path):
    """Makes an entry without tasks."""
    self.key, self.name, self.folder = key, name, folder
    self.found: dict[str, Any] = {}
    self.tasks: list[Task] = []
    self.version = 0
    self.media: set[str] = set()
    self.files: list[dict[str, Any]] = []
    self.touched = time.monotonic()

  @property
  def is_idle(self) -> bool:
    """Whether nothing is worked on or waited for."""
    return all(task.is_over for task in self.tasks)

  def change(self) -> None:
    """Notes a change."""
    self.version += 1
    self.touched = time.monotonic()

  def take(self, found: dict[str, Any]) -> None:
    """Adds what the worker has finished.

    Args:
      found: {'media': [names of files], 'file': {...}, and others, which the
        page gets as they are}.
    """
    found = dict(found)
    self.media.update(
      name for name in found.pop('media', ()) if MEDIA.fullmatch(name)
    )
    if 'file' in found:
      self.files.append(found.pop('file'))
    layers = found.pop('layers', None)
    if layers is not None:
      view = self.found.get('part')
      known = (
        view['layers'] if view and view['at'] == found['part']['at'] else []
      )
      new = {layer['name'] for layer in layers}
      kept = [layer for layer in known if layer['name'] not in new]
      found['part'] = {**found['part'], 'layers': [*kept, *layers]}
    self.found = {**self.found, **found}
    self.change()

  def view(self, queue: TaskQueue) -> dict[str, Any]:
    """Returns what the page is told of it."""
    task = next((t for t in self.tasks if not t.is_over), None)
    last = self.tasks[-1] if self.tasks else None
    told = task or last
    shown: dict[str, Any] = {
      'key': self.key,
      'name': self.name,
      'state': told.state if told else task_queue.DONE,
      'what': told.request['task'] if told else '',
      'error': last.error if last else '',
      'found': self.found,
      'files': [
        {k: v for k, v in file.items() if k != 'path'} for file in self.files
      ],
    }
    if task is not None:
      shown |= {
        'done': task.done,
        'total': task.total,
        'seconds_left': task.seconds_left,
        'before': queue.place(task) if task.state == 'waiting' else 0,
      }
    return shown


class KeptEntries:
  """All entries."""

  def __init__(
    self, folder: pathlib.Path, limits: ServingLimits, queue: TaskQueue
  ):
    """Begins without any, in a folder that is empty."""
    self._folder, self._limits, self._queue = folder, limits, queue
    self._entries: dict[str, Entry] = {}
    self._lock = threading.Lock()

  def add(self, name: str) -> Entry | None:
    """Returns a new entry; None if there are as many as may be."""
    with self._lock:
      if len(self._entries) >= self._limits.entries:
        return None
      key = secrets.token_urlsafe(16)
      folder = self._folder / key
      folder.mkdir(mode=0o700)
      self._entries[key] = Entry(key, cleaned(name), folder)
      return self._entries[key]

  def find(self, key: str) -> Entry | None:
    """Returns the entry of a key, or None."""
    return self._entries.get(key) if KEY.fullmatch(key) else None

  def begin(
    self,
    entry: Entry,
    request: dict[str, Any],
    on_end: Callable[[Task], object] = lambda task: None,
  ) -> Task:
    """Puts a task of an entry into the queue.

    Args:
      entry: the entry.
      request: for the worker; the folder is added here.
      on_end: callback when the task is over.

    Raises:
      QueueFull: too many tasks wait.
    """

    def changed():
      entry.change()
      if task.is_over:
        on_end(task)

    left = max(0, self._limits.folder_bytes - self.used_bytes())
    request = {**request, 'folder': str(entry.folder), 'bytes_left': left}
    task = Task(request, entry.take, changed)
    self._queue.put(task)
    entry.tasks = [*(t for t in entry.tasks if not t.is_over), task]
    entry.change()
    return task

  def stop(self, entry: Entry) -> None:
    """Cancels what is worked on or waits."""
    for task in list(entry.tasks):
      if not task.is_over:
        self._queue.cancel(task)

  def remove(self, entry: Entry) -> None:
    """Cancels what is worked on, and erases an entry."""
    with self._lock:
      self._entries.pop(entry.key, None)
    self.stop(entry)
    shutil.rmtree(entry.folder, ignore_errors=True)
    entry.change()

  def expire(self) -> None:
    """Erases entries with which nothing was done for a while."""
    until = time.monotonic() - self._limits.kept_seconds
    for entry in list(self._entries.values()):
      if entry.is_idle and entry.touched < until:
        self.remove(entry)
    # What a task wrote whose entry was removed meanwhile.
    for path in self._folder.iterdir():
      if KEY.fullmatch(path.name) and path.name not in self._entries:
        shutil.rmtree(path, ignore_errors=True)

  def used_bytes(self) -> int:
    """Returns the bytes of all files."""
    total = 0
    for path in self._folder.rglob('*'):
      try:
        found = path.lstat()
      except OSError:  # It has gone meanwhile.
        continue
      if stat.S_ISREG(found.st_mode):
        total += found.st_size
    return total


def cleaned(name: str) -> str:
  """Returns a file's name without folders and without what is not printed."""
  name = name.replace('\\', '/').rpartition('/')[2]
  name = ''.join(
    c for c in unicodedata.normalize('NFC', name)
    if unicodedata.category(c)[0] != 'C' and c not in '<>:"|?*'
  ).strip(' .')  # fmt: skip
  return name[:_NAME_LENGTH] or 'picture'
