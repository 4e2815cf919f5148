"""Lets one run at a time write into a folder, also between machines.

A second run in the same work directory or output folder would overwrite the
files of the first one, so one run holds a folder, and FOLDER/.cdm-lock names
it. All processes of a run count as one; process 0 holds the folder for them.
The file is removed when the run ends, whatever ends it. Only a killed process
leaves it behind, and the next start takes the folder over.

How the file is made. A lock of the operating system (flock) would not do: over
NFS it depends on the server, and gcsfuse keeps it on one machine. What works on
all of them is to create a file that must not exist yet. The file is written
under another name first and then linked (NFS makes a link or refuses it, and
nobody sees half a file); where hard links are unknown, as on gcsfuse, it is
created with O_EXCL.

How a dead run is replaced. Two starts may find the same dead run, and only one
of them may replace it: deleting the file and creating it anew would let the
slower one delete the lock of the faster one. Every lock therefore has a random
token, and whoever replaces a lock first creates `.cdm-lock.TOKEN`, where TOKEN
is that of the dead lock. Only one start can, because no token is used twice.
The winner checks that the dead lock is still there and renames its own file to
`.cdm-lock`. If it is killed in between, its file names the next dead run, and
the same rule holds for that one: locks form a chain, of which the last counts.

Who is dead is decided in `lock_owner`, and what a start does about a living run
in `lock_contention`.

A start that finds a living run is refused, with two exceptions in which it
waits, and says so: the owner was asked to end and is still saving, as after a
preemption (at most ENDING_SECONDS); or the owner is on another machine, and
must be watched to see whether it is alive (at most SILENT_SECONDS).

A process that was stopped for longer than SILENT_SECONDS (a suspended machine)
may have lost its folder to another machine. It notices that within seconds, and
ends at once.
"""

import atexit
import contextlib
import errno
import os
import pathlib
import secrets
import threading
import time
from collections.abc import Generator
from typing import Self

from cdm.distributed import (
  bucket_folders,
  bucket_lock,
  collectives,
  exit_codes,
  lock_owner,
  remote_paths,
)
from cdm.distributed.lock_contention import (
  AskedToEnd,
  Contention,
  FolderInUse,
)
from cdm.distributed.lock_owner import LOCK, Claim

POLL_SECONDS = 1.0

_held: dict[str, 'FolderLock'] = {}  # by the path of the folder


@contextlib.contextmanager
def hold(
  folder: str | os.PathLike,
  what: str,
  *,
  flag: str | None = None,
  asked_to_end: AskedToEnd = lambda: None,
) -> Generator[None]:
  """Context manager: holds a folder for this run, and makes it if needed.

  A collective: every process of the run must enter it. A folder that this
  process holds already is held until the outermost context ends. With the
  mirror of a bucket's folder, that folder is held too, see `bucket_lock`.

  Args:
    folder: path of the folder. If it was made here and is still empty at the
      end, it is removed again.
    what: the command, for the messages of other runs.
    flag: the flag that gave the folder, for error messages; None if the user
      cannot give another folder.
    asked_to_end: tells other runs that this one will end soon.

  Raises:
    FolderInUse: another run holds the folder, or this run was asked to end
      while it waited for that run.
    OSError: the folder cannot be written.
  """
  locks: list[FolderLock | bucket_lock.BucketLock] = []
  url = bucket_folders.url_of(folder)
  if url is not None:
    locks.append(
      bucket_lock.BucketLock(url, what, flag=flag, asked_to_end=asked_to_end)
    )
  locks.append(FolderLock(folder, what, flag=flag, asked_to_end=asked_to_end))
  with contextlib.ExitStack() as held:
    for lock in locks:
      _agree(lock)
      held.callback(lock.release)
    yield


def hold_until_end(folder: str | os.PathLike, what: str) -> 'FolderLock':
  """Holds a folder until its lock is released, or the process ends.

  A collective, like `hold`. `release` removes the folder if it is empty.
  """
  lock = FolderLock(folder, what, remove_empty=True)
  _agree(lock)
  return lock


def release_all() -> None:
  """Releases every folder that this process holds, before it ends at once."""
  for lock in list(_held.values()):
    lock.release(entirely=True)
  bucket_lock.release_all()


atexit.register(release_all)


def _agree(lock: 'FolderLock | bucket_lock.BucketLock') -> None:
  """Takes the folder in process 0; all processes raise if that fails."""
  if collectives.process_count() == 1:
    lock.acquire()
    return
  error = None
  while True:
    outcome, text, unwritable = None, '', False
    if collectives.is_first():
      try:
        outcome = lock.attempt()
      except (ValueError, OSError) as raised:
        error, text = raised, exit_codes.sentence(raised)
        outcome = exit_codes.classify(raised)
        unwritable = isinstance(raised, OSError)
    # Asked anew every second: no collective may be waited in for minutes.
    outcome, text, unwritable = collectives.gather_objects(
      [outcome, text, unwritable]
    )[0]
    if outcome is True:
      return
    if outcome is not False:
      refused = FolderInUse(text, exit_codes.ExitCode(*outcome))
      raise error or (OSError(text) if unwritable else refused)
    time.sleep(POLL_SECONDS)


class FolderLock:
  """The lock of one folder, a context manager for a command of one process."""

  def __init__(
    self,
    folder: str | os.PathLike,
    what: str,
    *,
    flag: str | None = None,
    asked_to_end: AskedToEnd = lambda: None,
    remove_empty: bool = False,
  ):
    """Prepares the lock; `acquire` takes the folder.

    Args:
      folder, what, flag, asked_to_end: see `hold`.
      remove_empty: remove the folder at the end if it is empty, even if it was
        there before.
    """
    self.token = secrets.token_hex(8)
    self._folder = pathlib.Path(os.path.realpath(folder))
    self._given, self._flag = os.fspath(folder), flag
    self._content = lock_owner.content(what, self.token)
    self._contention = Contention(self._given, flag, asked_to_end)
    self._remove_empty = remove_empty
    self._path = self._folder / LOCK
    self._candidate = self._folder / f'{LOCK}.new.{self.token}'
    self._made: list[pathlib.Path] = []  # folders, the innermost first
    self._count = 0  # contexts of this process that hold the folder
    self._pid = os.getpid()
    self._ended = threading.Event()
    self._thread = threading.Thread(
      target=self._beat_on, name='folder_lock', daemon=True
    )

  def __enter__(self) -> Self:
    self.acquire()
    return self

  def __exit__(self, *_: object) -> None:
    self.release()

  def acquire(self) -> None:
    """Takes the folder, or waits; see `hold`."""
    while not self.attempt():
      time.sleep(POLL_SECONDS)

  def attempt(self) -> bool:
    """Tries once. Returns False if another attempt is due; see `hold`."""
    outer = _held.get(str(self._folder))
    if outer is not None and outer._pid == os.getpid():
      outer._count += 1
      return True
    remote_paths.refuse(str(self._given), self._flag or '')
    self._contention.begin()
    held = False
    try:
      parents = (self._folder, *self._folder.parents)
      self._made = [path for path in parents if not path.exists()]
      self._folder.mkdir(parents=True, exist_ok=True)
      held = self._take()
    except OSError as error:
      if isinstance(error, FileNotFoundError) and not self._folder.exists():
        return False  # Its owner removed it at this moment, as it was empty.
      raise OSError(
        f'{self._contention.named} cannot be written: '
        f'{error.strerror or error}. Free space, or give a folder that can be '
        'written.'
      ) from error
    except BaseException:  # Ctrl-C, too, must not leave a lock.
      self._withdraw()
      raise
    finally:
      with contextlib.suppress(OSError):
        self._candidate.unlink()
      if not held:
        self._remove_folders()
    if held:
      self._count = 1
      _held[str(self._folder)] = self
      self._thread.start()
    return held

  def release(self, *, entirely: bool = False) -> None:
    """Leaves a context; the outermost one, or `entirely`, frees the folder."""
    lock = _held.get(str(self._folder))
    if lock is None or lock._pid != os.getpid():
      return  # Another process of the run holds it, or the parent of a fork.
    lock._count -= 1
    if lock._count and not entirely:
      return
    del _held[str(self._folder)]
    lock._ended.set()
    if lock._thread is not threading.current_thread():
      lock._thread.join(timeout=POLL_SECONDS)
    # A lock that cannot be removed is taken over by the next run.
    with contextlib.suppress(OSError):
      lock._unlink_own(lock._path)
    if lock._remove_empty:
      lock._made = lock._made or [lock._folder]
    lock._remove_folders()

  def _remove_folders(self) -> None:
    with contextlib.suppress(OSError):  # One that is not empty stays.
      for path in self._made:
        path.rmdir()
    self._made = []

  def _take(self) -> bool:
    """Tries to become the owner, as the module describes."""
    while True:
      self._write_candidate()
      claims = self._chain()
      if claims:
        beat = self._candidate.stat().st_mtime_ns
        silence = (beat - claims[-1].beat) / 1e9
        if not self._contention.is_dead(claims[-1], silence):
          return False
      name = f'{LOCK}.{claims[-1].token}' if claims else LOCK
      if not self._create(self._folder / name):
        continue  # Another start was faster.
      wanted = [*(claim.token for claim in claims), self.token]
      if [claim.token for claim in self._chain()] != wanted:
        self._unlink_own(self._folder / name)
        continue
      if claims:
        try:
          os.replace(self._folder / name, self._path)
        except FileNotFoundError:
          continue  # The owner is back, and removed it.
        self._contention.say_taken_over(claims[-1])
      # Left by killed starts; a living one makes its file anew.
      for path in self._folder.glob(f'{LOCK}.*'):
        path.unlink(missing_ok=True)
      return True

  def _chain(self) -> list[Claim]:
    """Returns the lock, the one that is to replace it, and so on."""
    claims, name = [], LOCK
    while (claim := lock_owner.read(self._folder / name)) is not None:
      claims.append(claim)
      name = f'{LOCK}.{claim.token}'
    return claims

  def _write_candidate(self) -> None:
    """Writes the file anew, which also tells the time of the file system."""
    self._candidate.unlink(missing_ok=True)
    lock_owner.write_new(self._candidate, self._content)

  def _create(self, path: pathlib.Path) -> bool:
    """Creates a lock file, unless there is one of this name."""
    try:
      os.link(self._candidate, path)
      return True
    except (FileExistsError, FileNotFoundError):
      # NFS says so of a link that it has made, too, if its answer was lost. The
      # candidate is missing if another run has just taken the folder.
      return self._is_own(path)
    except OSError:
      pass  # There are no hard links here.
    try:
      lock_owner.write_new(path, self._content)
    except OSError as error:
      if error.errno in (errno.EEXIST, errno.ESTALE):
        return False
      raise
    return True

  def _withdraw(self) -> None:
    with contextlib.suppress(OSError):
      for path in self._folder.glob(f'{LOCK}*'):
        self._unlink_own(path)

  def _is_own(self, path: pathlib.Path) -> bool:
    claim = lock_owner.read(path)
    return claim is not None and claim.token == self.token

  def _unlink_own(self, path: pathlib.Path) -> None:
    if self._is_own(path):
      path.unlink(missing_ok=True)

  def _beat_on(self) -> None:
    """Shows signs of life until the lock is released; runs in a thread."""
    last, told = time.monotonic(), False
    while not self._ended.wait(min(POLL_SECONDS, lock_owner.BEAT_SECONDS)):
      # The disk may be full, or the server away for a moment.
      with contextlib.suppress(OSError):
        if not told and self._contention.asked_to_end() is not None:
          told = True
          with open(self._path, 'ab') as file:
            file.write(lock_owner.ENDING_LINE)
        if time.monotonic() - last >= lock_owner.BEAT_SECONDS:
          last = time.monotonic()
          self._beat()

  def _beat(self) -> None:
    claim = lock_owner.read(self._path)
    if claim is None:
      # Somebody removed it by hand, and this run goes on.
      lock_owner.write_new(self._path, self._content)
    elif claim.token == self.token:
      os.utime(self._path)
    else:
      self._contention.leave(claim)
