"""Bounds the memory that threads take together while they decode images."""

import collections
import contextlib
import threading
import weakref
from collections.abc import Generator

import numpy as np

LIMIT_BYTES = 2**30
# Of images that are decoded, cropped and wait for their batch. They come beside
# the budget above, which would else admit one thread alone for as long as the
# images wait.
BUFFER_BYTES = 2**29
# Decoded images of at least this size count until they are freed. Smaller ones
# are many and short-lived, or are kept on purpose, as a batch.
_LARGE_BYTES = 2**26


class MemoryBudget:
  """A semaphore weighted by bytes; threads are admitted in their order.

  A thread whose need is larger than the limit works alone. So nobody waits
  forever, whatever others keep.
  """

  def __init__(self, limit_bytes: int = LIMIT_BYTES):
    self._limit, self._used, self._active = limit_bytes, 0, 0
    # The lock is reentrant, because an array may be freed, and so release its
    # bytes, while its thread holds the lock.
    self._changed = threading.Condition(threading.RLock())
    self._queue: collections.deque[object] = collections.deque()

  @contextlib.contextmanager
  def reserve(self, count: int) -> Generator[None]:
    """Context manager that waits until `count` bytes are within the budget."""
    place = object()
    with self._changed:
      self._queue.append(place)
      try:
        self._changed.wait_for(
          lambda: self._queue[0] is place and self._admits(count)
        )
        self._used += count
        self._active += 1
      finally:
        self._queue.remove(place)
        self._changed.notify_all()
    try:
      yield
    finally:
      with self._changed:
        self._active -= 1
      self._release(count)

  def count_until_freed(self, array: np.ndarray) -> None:
    """Counts the bytes of a large array as used for as long as it lives."""
    if array.nbytes >= _LARGE_BYTES:
      with self._changed:
        self._used += array.nbytes
      weakref.finalize(array, self._release, array.nbytes).atexit = False

  def _admits(self, count):
    return not self._active or self._used + count <= self._limit

  def _release(self, count):
    with self._changed:
      self._used -= count
      self._changed.notify_all()
