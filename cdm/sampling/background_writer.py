"""Writes batches of images in a thread, while the next batch is drawn.

Encoding and writing a batch takes the host long enough that the devices would
wait for it. The queue to the thread is short, so that memory holds a few
batches only.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

AHEAD = 2  # batches that wait to be written
_END = object()


class _Abandoned(BaseException):
  """Raised inside the thread where it waits, if the work is given up."""


class BackgroundWriter:
  """Runs `consume(batches)` in a thread, and feeds it batches with `put`.

  Use as a context manager. At its end it waits until everything is written. If
  the block ends with an error, such as Ctrl-C, batches that wait are dropped
  and an exception is raised inside `consume`, so that its context managers
  remove what is half written. An error of `consume` is raised in the caller, by
  the next `put` or at the end.
  """

  def __init__(self, consume: Callable[[Iterator[Any]], None]):
    """Prepares the thread, which starts on entering the context.

    Args:
      consume: function that writes every batch of an iterator.
    """
    self._consume = consume
    self._batches = queue.Queue(AHEAD)
    self._abandoned = threading.Event()
    self._error: BaseException | None = None
    self._thread = threading.Thread(
      target=self._run, name='background writer', daemon=True
    )

  def __enter__(self) -> BackgroundWriter:
    self._thread.start()
    return self

  def __exit__(self, _: object, error: BaseException | None, __: object):
    if error is None:
      try:
        self._hand_over(_END)
        while self._thread.is_alive():
          self._thread.join(timeout=0.1)  # Ctrl-C is noticed in between.
      finally:
        self._give_up()
      self._raise_error()
    else:
      self._give_up()

  def put(self, batch: Any) -> None:
    """Hands a batch to the thread; waits while `AHEAD` batches wait already.

    Raises:
      Exception: the error of `consume`, if it has failed.
    """
    self._hand_over(batch)
    self._raise_error()

  def _hand_over(self, item):
    while self._thread.is_alive():
      with contextlib.suppress(queue.Full):
        self._batches.put(item, timeout=0.1)
        return

  def _give_up(self):
    self._abandoned.set()
    self._thread.join(timeout=60)

  def _raise_error(self):
    if self._error is not None:
      raise self._error

  def _run(self):
    try:
      self._consume(self._waiting())
    except _Abandoned:
      pass
    except BaseException as error:  # It is raised in the main thread.
      self._error = error

  def _waiting(self):
    """Yields the batches that were put, until the end."""
    while True:
      if self._abandoned.is_set():
        raise _Abandoned
      with contextlib.suppress(queue.Empty):
        item = self._batches.get(timeout=0.1)
        if item is _END:
          return
        yield item
