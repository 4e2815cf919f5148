"""Gives tasks to the worker, one after the other, and ends what takes too long.

A task that is cancelled is asked to end between two batches of windows. If it
does not within seconds, or if it exceeds its time, the worker is killed and
another one is started, so that the machine is free.
"""

import collections
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cdm.cli.web.enlarging.serving_limits import ServingLimits
from cdm.cli.web.enlarging.worker_process import WorkerEnded, WorkerProcess

WAITING, WORKING, DONE, FAILED, CANCELLED = (
  *('waiting', 'working', 'done', 'failed', 'cancelled'),
)
GRACE_SECONDS = 2.0  # in which a task that is cancelled may end by itself
START_SECONDS = 1800.0  # in which a model must be loaded and compiled
_PATIENCE = 0.05  # seconds between two looks for a cancellation
# Windows after which the time that is left can be told: the first of them may
# have waited for a compilation.
_TOLD_AFTER = 3


class QueueFull(Exception):
  """As many tasks wait as may."""


class Task:
  """Something that the worker is to do.

  Attributes:
    request: what it is sent.
    state: one of the words above.
    done, total: windows, of all; total is 0 while nobody knows.
    seconds_left: None while nobody knows.
    error: a sentence, if it failed.
  """

  def __init__(
    self,
    request: dict[str, Any],
    on_found: Callable[[dict[str, Any]], object],
    on_change: Callable[[], object] = lambda: None,
  ):
    """Describes a task.

    Args:
      request: see the class.
      on_found: callback that gets what is finished; it runs in the thread of
        the queue.
      on_change: callback after each change of the attributes.
    """
    self.request = request
    self.on_found, self.on_change = on_found, on_change
    self.state, self.error = WAITING, ''
    self.done = self.total = 0
    self.seconds_left: float | None = None
    self.cancelled = False
    self._marks: list[tuple[float, int]] = []

  @property
  def is_over(self) -> bool:
    """Whether nothing more will come of it."""
    return self.state in (DONE, FAILED, CANCELLED)

  def advance(self, done: int, total: int) -> None:
    """Notes how far it is, and how long the rest may take."""
    self.done, self.total = done, total
    self._marks.append((time.monotonic(), done))
    if len(self._marks) >= _TOLD_AFTER:
      (then, first), (now, last) = self._marks[0], self._marks[-1]
      if last > first:
        self.seconds_left = (now - then) / (last - first) * (total - done)
    self.on_change()

  def end(self, state: str, error: str = '') -> None:
    """Notes that it is over."""
    self.state, self.error, self.seconds_left = state, error, None
    self.on_change()


class TaskQueue:
  """The queue, its thread and its worker.

  Attributes:
    about: what the worker says of its model.
  """

  def __init__(self, command: Sequence[str], limits: ServingLimits):
    """Starts the worker, and waits until its model is loaded.

    Args:
      command: the worker's program and its arguments.
      limits: how many tasks may wait, and how long one may take.

    Raises:
      ValueError: the worker refused to start; the message is its own.
    """
    self._command, self._limits = command, limits
    self._waiting: collections.deque[Task] = collections.deque()
    self._current: Task | None = None
    self._changed = threading.Condition()
    self._closed = False
    self._numbers = itertools.count()
    self._worker, self.about = self._started()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  @property
  def worker_pid(self) -> int:
    """The number of the worker's process."""
    return self._worker.pid

  def put(self, task: Task) -> None:
    """Appends a task.

    Raises:
      QueueFull: too many wait.
    """
    with self._changed:
      if not self.has_room():
        raise QueueFull
      self._waiting.append(task)
      self._changed.notify()

  def has_room(self) -> bool:
    """Whether another task would be taken."""
    idle = self._current is None and not self._waiting
    return idle or len(self._waiting) < self._limits.waiting

  def place(self, task: Task) -> int:
    """Returns how many tasks come before one that waits."""
    with self._changed:
      before = int(self._current is not None)
      return before + sum(1 for _ in itertools.takewhile(
        lambda other: other is not task, self._waiting
      ))  # fmt: skip

  def cancel(self, task: Task) -> None:
    """Ends a task, at once if it waits and within seconds if not."""
    with self._changed:
      task.cancelled = True
      if task in self._waiting:
        self._waiting.remove(task)
        task.end(CANCELLED)

  def close(self) -> None:
    """Ends the worker and the thread."""
    with self._changed:
      self._closed = True
      self._changed.notify()
    self._worker.end()
    self._thread.join(10)

  def _run(self):
    while (task := self._next()) is not None:
      try:
        self._give(task)
      except WorkerEnded:
        if not task.is_over:
          task.end(CANCELLED if task.cancelled else FAILED, _ENDED)
      with self._changed:
        self._current = None
      self._revive()

  def _next(self):
    with self._changed:
      while not self._waiting and not self._closed:
        self._changed.wait()
      if self._closed:
        return None
      self._current = self._waiting.popleft()
      return self._current

  def _give(self, task):
    """Has the worker do a task.

    Raises:
      WorkerEnded: it ended meanwhile.
    """
    self._revive()  # It may have been ended from outside.
    number = next(self._numbers)
    self._worker.send({'number': number, **task.request})
    task.state = WORKING
    task.on_change()
    until = time.monotonic() + self._limits.task_seconds
    asked = False
    while not task.is_over:
      if task.cancelled and not asked:
        self._worker.send({'cancel': number})
        until, asked = time.monotonic() + GRACE_SECONDS, True
      message = self._worker.receive(_PATIENCE)
      if message is not None and message.get('number') == number:
        _take(task, message)
      if not task.is_over and time.monotonic() > until:
        self._worker.end()
        minutes = self._limits.task_seconds / 60
        if task.cancelled:
          task.end(CANCELLED)
        else:
          task.end(FAILED, f'It took longer than {minutes:.3g} minutes.')

  def _revive(self):
    """Starts another worker where the last one has ended.

    One that does not start is tried again for the next task.
    """
    if self._closed or self._worker.is_alive:
      return
    with contextlib.suppress(ValueError):
      self._worker, _ = self._started()
    if self._closed:  # meanwhile
      self._worker.end()

  def _started(self):
    """Returns (a worker that is ready, what it says)."""
    worker = WorkerProcess(self._command)
    try:
      message = worker.receive(START_SECONDS)
    except WorkerEnded:
      message = {'refused': 'The process that draws ended while it started.'}
    except BaseException:  # Ctrl-C
      worker.end()
      raise
    if message is None or 'ready' not in message:
      worker.end()
      late = 'The model could not be loaded in time.'
      raise ValueError((message or {}).get('refused', late))
    return worker, message['ready']


_ENDED = (
  'The process that draws has ended, probably for want of memory. Try a '
  'smaller picture or a smaller size.'
)


def _take(task, message):
  """Notes a message of a task."""
  if 'progress' in message:
    task.advance(*message['progress'])
  for key in ('found', 'done'):
    if key in message:
      task.on_found(message[key])
  if 'done' in message:
    task.end(DONE)
  elif 'error' in message:
    task.end(FAILED, message['error'])
  elif 'cancelled' in message:
    task.end(CANCELLED)
  else:
    task.on_change()
