"""Lets one run at a time write into a folder of a bucket.

The lock is the object FOLDER/.cdm-lock, with the content that `lock_owner`
gives a lock file. It is simpler than `folder_lock`, because an object store
compares and writes in one request: the lock is created only if there is none,
and a sign of life, a takeover and the removal only happen if the lock is still
the one that was read. The loser of a race is told so and looks again.

A sign of life is a write of the same content, which changes the generation of
the object. Who is dead is decided by the rules of `lock_owner`: on the owner's
machine by its process, elsewhere by SILENT_SECONDS without a sign. The ages are
differences of two times of the service, as the clocks of two machines differ.
"""

import contextlib
import os
import secrets
import threading
import time

from cdm.distributed import bucket, lock_owner
from cdm.distributed.lock_contention import AskedToEnd, Contention
from cdm.distributed.lock_owner import LOCK, Claim

POLL_SECONDS = 1.0
_held: dict[str, 'BucketLock'] = {}  # by the URL of the folder


def release_all() -> None:
  """Releases every folder of a bucket that this process holds."""
  for lock in list(_held.values()):
    lock.release(entirely=True)


class BucketLock:
  """The lock of one folder of a bucket."""

  def __init__(
    self,
    url: str,
    what: str,
    *,
    flag: str | None = None,
    asked_to_end: AskedToEnd = lambda: None,
  ):
    """Prepares the lock; `acquire` takes the folder.

    Args:
      url: URL of the folder.
      what, flag, asked_to_end: see `folder_lock.hold`.
    """
    self._url, self._folder = url, bucket.Folder(url)
    self._token = secrets.token_hex(8)
    self._content = lock_owner.content(what, self._token)
    self._contention = Contention(url, flag, asked_to_end)
    self._generation = 0  # of the lock, as this run wrote it last
    self._clock: float | None = None  # the service's minus that of here
    self._count, self._pid = 0, os.getpid()
    self._ended = threading.Event()
    self._thread = threading.Thread(
      target=self._beat_on, name='bucket_lock', daemon=True
    )

  def acquire(self) -> None:
    """Takes the folder, or waits.

    Raises:
      FolderInUse: another run holds it, or this run was asked to end.
      ValueError: the bucket does not exist or may not be used.
      OSError: the service cannot be reached.
    """
    while not self.attempt():
      time.sleep(POLL_SECONDS)

  def attempt(self) -> bool:
    """Tries once. Returns False if another attempt is due; see `acquire`."""
    outer = _held.get(self._url)
    if outer is not None and outer._pid == os.getpid():
      outer._count += 1
      return True
    self._contention.begin()
    found = self._folder.read(LOCK)
    generation = 0
    if found is not None:
      claim, generation = self._claim(found), found.generation
      if claim.token != self._token:  # else the answer to the write was lost
        silence = self._now(found) - found.updated
        if not self._contention.is_dead(claim, silence):
          return False
        self._contention.say_taken_over(claim)
    try:
      self._generation = self._write(generation)
    except bucket.Changed:
      return self.attempt()  # Another start was faster, or it is our own.
    self._count = 1
    _held[self._url] = self
    self._thread.start()
    return True

  def release(self, *, entirely: bool = False) -> None:
    """Leaves a context; the outermost one, or `entirely`, frees the folder."""
    lock = _held.get(self._url)
    if lock is None or lock._pid != os.getpid():
      return
    lock._count -= 1
    if lock._count > 0 and not entirely:
      return
    del _held[self._url]
    lock._ended.set()
    if lock._thread is not threading.current_thread():
      lock._thread.join(timeout=POLL_SECONDS)
    # A lock that cannot be removed is taken over by the next run.
    with contextlib.suppress(OSError, ValueError):
      self._folder.delete(
        LOCK, generation=lock._generation, patient=not entirely
      )

  def _write(self, generation: int, ending: bytes = b'') -> int:
    """Writes the lock in place of a generation; returns the new one."""
    content = self._content + ending
    return self._folder.write(LOCK, content, generation=generation).generation

  def _claim(self, found: bucket.Content) -> Claim:
    """Returns a lock as `lock_owner` knows it; its beat is the generation."""
    damaged = f'damaged-{found.generation}'
    return lock_owner.parse(found.data, beat=found.generation, damaged=damaged)

  def _now(self, found: bucket.Content) -> float:
    """Returns the time of the service, which a write of an object tells."""
    if self._clock is None:
      name = f'{LOCK}.new.{self._token}'
      written = self._folder.write(name, self._content)
      self._clock = written.updated - time.time()
      self._folder.delete(name)
    return max(time.time() + self._clock, found.updated)

  def _beat_on(self) -> None:
    """Shows signs of life until the lock is released; runs in a thread."""
    last, told = time.monotonic(), False
    while not self._ended.wait(min(POLL_SECONDS, lock_owner.BEAT_SECONDS)):
      ending = not told and self._contention.asked_to_end() is not None
      if not ending and time.monotonic() - last < lock_owner.BEAT_SECONDS:
        continue
      last, told = time.monotonic(), told or ending
      # The service may be away for a moment.
      with contextlib.suppress(OSError, ValueError):
        self._beat(lock_owner.ENDING_LINE if told else b'')

  def _beat(self, ending: bytes) -> None:
    try:
      self._generation = self._write(self._generation, ending)
      return
    except bucket.Changed:
      found = self._folder.read(LOCK)
    if self._ended.is_set():
      return
    if found is None:
      # Somebody removed it by hand, and this run goes on.
      with contextlib.suppress(bucket.Changed):
        self._generation = self._write(0, ending)
      return
    claim = self._claim(found)
    if claim.token != self._token:
      self._contention.leave(claim)
    self._generation = found.generation
