"""Runs functions in threads, and hands on their results in order."""

import collections
import concurrent.futures
import os
from collections.abc import Callable
from typing import Any

_MOST_THREADS = 8


class OrderedWork:
  """Threads whose results are handed on in the order of submission.

  What waits is bounded, so a slow disk makes the caller wait. The functions
  must spend their time outside of Python's lock, as zlib and libjpeg do.
  """

  def __init__(self, accept: Callable[[Any], None]):
    """Starts no thread yet.

    Args:
      accept: is called with each result, in order, by the caller's thread.
    """
    self._accept = accept
    self._count = min(os.cpu_count() or 1, _MOST_THREADS)
    self._threads = concurrent.futures.ThreadPoolExecutor(self._count)
    self._waiting: collections.deque[concurrent.futures.Future[Any]] = (
      collections.deque()
    )

  def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
    """Runs a function in a thread; its error is raised by a later call."""
    while len(self._waiting) > self._count:
      self._accept(self._waiting.popleft().result())
    self._waiting.append(self._threads.submit(function, *arguments))

  def finish(self) -> None:
    """Waits for all results."""
    while self._waiting:
      self._accept(self._waiting.popleft().result())

  def close(self) -> None:
    """Ends the threads, and drops what was not finished."""
    self._threads.shutdown(wait=True, cancel_futures=True)
    self._waiting.clear()
