"""Copies the small files of a run between a bucket and its local mirror.

A run whose work directory is in a bucket writes its records into a mirror of
that folder on the local disk, see `bucket_folders`. Process 0 uploads what has
changed: in a thread, so that training never waits for it; before a checkpoint
counts as complete, so that the records in the bucket are never older than the
newest checkpoint there; and at the end. A run that starts makes its mirror
equal to the bucket first, so that any machine continues the same records.

Checkpoints are no part of it: they are written to the bucket directly.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import sys
import threading
import time
from collections.abc import Generator, Iterable

from cdm.data.files import atomic_files
from cdm.distributed import (
  bucket,
  bucket_folders,
  collectives,
  lock_owner,
  user_cache,
)

# Orbax writes these into the bucket.
DIRECT = ('checkpoints', 'checkpoints_damaged', 'ema_snapshots')
# TensorBoard reads these from the bucket; no run reads its own. They are large
# and change with every line, so they are uploaded less often.
EVENTS = 'tensorboard'
INTERVAL_S = 15.0
EVENTS_INTERVAL_S = 60.0
MOST_PAUSE_S = 300.0  # between two attempts while the bucket is away
# So long uploads are tried that something waits for: the last one, and that
# before a checkpoint.
END_S = 60.0
_THREADS = 8


class Upload:
  """Uploads what changes in the mirror of a bucket's folder."""

  def __init__(self, folder: pathlib.Path, url: str):
    """Takes a mirror that equals the bucket.

    Args:
      folder: the mirror.
      url: URL of the folder in the bucket.
    """
    self._folder, self._url = folder, url
    self._remote = bucket.Folder(url)
    self._known = _scan(self._folder)  # files as the bucket has them
    self._events_due = time.monotonic() + EVENTS_INTERVAL_S
    self._mutex = threading.Lock()
    self._failing = False
    self._ended = threading.Event()
    self._thread = threading.Thread(
      target=self._upload_on, name='bucket_mirror', daemon=True
    )
    self._thread.start()

  def flush(self, seconds: float, *, events: bool = True) -> None:
    """Uploads all changes; never raises, because a run is worth more.

    Args:
      seconds: for so long it is tried again if it fails.
      events: whether the event files are uploaded too.
    """
    deadline = time.monotonic() + seconds
    pause = 1.0
    while not self._try(events=events):
      if time.monotonic() + pause > deadline:
        break
      time.sleep(pause)
      pause *= 2

  def close(self) -> None:
    """Ends the thread and uploads what has changed since."""
    self._ended.set()
    self._thread.join(timeout=END_S)
    self.flush(END_S)
    if self._failing:
      _warn(
        f'not all records of this run are in {self._url}; they are in '
        f'{self._folder} until the next run there'
      )

  def _upload_on(self) -> None:
    pause = INTERVAL_S
    while not self._ended.wait(pause):
      events = time.monotonic() >= self._events_due
      done = self._try(events=events)
      pause = INTERVAL_S if done else min(2 * pause, MOST_PAUSE_S)
      if done and events:
        self._events_due = time.monotonic() + EVENTS_INTERVAL_S

  def _try(self, *, events: bool) -> bool:
    """Uploads the changes once. Returns whether that worked."""
    try:
      with self._mutex:
        self._upload(events)
    except (OSError, ValueError) as error:
      if not self._failing:
        _warn(f'the records are not uploaded now, and will be later: {error}')
      self._failing = True
      return False
    if self._failing:
      _warn(f'the records are uploaded to {self._url} again')
    self._failing = False
    return True

  def _upload(self, events: bool) -> None:
    found = _scan(self._folder)
    changed = [
      name
      for name, stamp in found.items()
      if self._known.get(name) != stamp and (events or not _is_event(name))
    ]

    def send(name: str) -> None:
      try:
        data = (self._folder / name).read_bytes()
      except FileNotFoundError:
        return
      self._remote.write(name, data)
      # The stamp is older than the data: a file that was appended to meanwhile
      # is sent again.
      self._known[name] = found[name]

    # A file that got another name is there under the new one before the old one
    # is replaced or deleted: a kill in between then loses nothing.
    _in_threads(send, [name for name in changed if name not in self._known])
    _in_threads(send, [name for name in changed if name in self._known])
    for name in set(self._known) - set(found):
      self._remote.delete(name)
      del self._known[name]


def _scan(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Returns {relative name: (size, modification time)} of a mirror's files."""
  found = {}
  for root, folders, files in os.walk(folder):
    if root == str(folder):
      folders[:] = [name for name in folders if name not in DIRECT]
    for file in files:
      if atomic_files.is_partial(file) or file.startswith(lock_owner.LOCK):
        continue
      path = pathlib.Path(root, file)
      with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        name = path.relative_to(folder).as_posix()
        found[name] = (status.st_size, status.st_mtime_ns)
  return found


_running: list[Upload] = []


def flush_all(seconds: float) -> None:
  """Uploads the changes of every mirror, before this process ends at once."""
  for upload in _running:
    upload.flush(seconds)


@contextlib.contextmanager
def mirrored(folder: str | os.PathLike) -> Generator[Upload | None]:
  """Context manager: fills a mirror, and uploads its changes until the end.

  A collective: every process of the run must enter it, when the run holds the
  folder. A folder that is no mirror is left alone.

  Args:
    folder: the work directory of a run.

  Yields:
    The upload; None in processes other than process 0, and for other folders.

  Raises:
    OSError: the bucket cannot be read.
  """
  url, folder = bucket_folders.url_of(folder), pathlib.Path(folder)
  if url is None:
    yield None
    return
  if collectives.is_first():
    _fill(folder, url)
  collectives.barrier('the mirror of process 0 is filled')
  if not collectives.is_first():  # It may be on another machine.
    _fill_settings(folder, url)
  collectives.barrier('every mirror is filled')
  if not collectives.is_first():
    yield None
    return
  upload = Upload(folder, url)
  _running.append(upload)
  try:
    yield upload
  finally:
    _running.remove(upload)
    upload.close()


def _fill(folder: pathlib.Path, url: str) -> None:
  """Makes a mirror equal to the bucket."""
  remote = bucket.Folder(url)
  entries, folders = remote.level()
  for below in folders:
    if below.strip('/') not in (*DIRECT, EVENTS, bucket_folders.COMPILED):
      entries += remote.entries(below)
  _replace(remote, folder, entries)


def _fill_settings(folder: pathlib.Path, url: str) -> None:
  """Downloads what every process reads: the JSON files beside the folders.

  Records, grids and crash reports are read and written by process 0 alone.
  Files that process 0 has already downloaded into the same mirror stay.
  """
  remote = bucket.Folder(url)
  entries, _ = remote.level()
  settings = [entry for entry in entries if entry.name.endswith('.json')]
  names = {entry.name for entry in settings}
  for path in folder.glob('*.json'):
    if path.name not in names:
      path.unlink(missing_ok=True)
  _download(remote, folder, settings)


def fill_for_reading(folder: str | os.PathLike) -> None:
  """Downloads the records that commands read from a work directory.

  These are the files directly in it and, for a cascade, in the work directories
  of its stages.

  Args:
    folder: the mirror.

  Raises:
    ValueError: the bucket does not exist or may not be used.
    OSError: the bucket cannot be read.
  """
  url = bucket_folders.url_of(folder)
  assert url is not None
  remote = bucket.Folder(url)
  entries, folders = remote.level()
  checkpoints = DIRECT[0] + '/'
  if checkpoints not in folders:
    for below in folders:
      files, inside = remote.level(below)
      if below + checkpoints in inside:
        entries += files
  _replace(remote, pathlib.Path(folder), entries)


def _replace(
  remote: bucket.Folder, folder: pathlib.Path, entries: Iterable[bucket.Entry]
) -> None:
  """Downloads objects into a mirror, and removes all other files there."""
  entries = list(entries)
  names = {entry.name for entry in entries if _is_record(entry.name)}
  present = _scan(folder) if folder.is_dir() else {}
  for name in set(present) - names:
    (folder / name).unlink(missing_ok=True)
  _download(remote, folder, entries)


def _download(
  remote: bucket.Folder, folder: pathlib.Path, entries: Iterable[bucket.Entry]
) -> None:
  """Downloads objects into a mirror.

  Several processes may do so at once, and write the same files.
  """
  names = [entry.name for entry in entries if _is_record(entry.name)]

  def fetch(name: str) -> None:
    content = remote.read(name)
    if content is None:
      return  # It was deleted meanwhile.
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files.write_atomically(path, durable=False) as partial:
      partial.write_bytes(content.data)

  folder.mkdir(parents=True, exist_ok=True)
  _in_threads(fetch, names)


def _is_record(name: str) -> bool:
  """Whether an object is a file of a run, and can be one on a disk."""
  parts = name.split('/')
  usable = all(part not in ('', '.', '..') for part in parts)
  return usable and not parts[-1].startswith(lock_owner.LOCK)


def _is_event(name: str) -> bool:
  return name.startswith(f'{EVENTS}/')


def local_file(name: str) -> str:
  """Returns the path of a local copy of a file in a bucket.

  The copy is in the user's cache, below the generation of the object: a copy
  that is there is the same file.

  Args:
    name: gs://BUCKET/PATH; any other text is returned as it is.

  Raises:
    ValueError: there is no such file.
    OSError: it cannot be downloaded.
  """
  if not bucket_folders.is_url(name):
    return name
  parent, _, file = name.rpartition('/')
  remote = bucket.Folder(parent)
  found = remote.find(file)
  if found is None:
    raise ValueError(
      f'{name}: there is no such object in the bucket. Look at '
      f'`gcloud storage ls {parent}/`.'
    )
  where, path = bucket_folders.parse(name)
  cache = user_cache.folder('buckets', free=2 * found.size)
  copy = cache / 'files' / where / path / str(found.generation) / file
  if not copy.is_file() or copy.stat().st_size != found.size:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files.write_atomically(copy) as partial:
      remote.download(found, partial)
  return str(copy)


def _in_threads(call, items: list) -> None:
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for _ in pool.map(call, items):
      pass


def _warn(text: str) -> None:
  print(f'cdm: warning: {text}.', file=sys.stderr, flush=True)
