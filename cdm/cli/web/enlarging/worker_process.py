"""Starts the process that reads and draws pictures, and speaks with it.

Both send lines of JSON. The worker ends by itself when its input ends, so that
it never outlives the server.

  to the worker    {'number': n, 'task': ..., ...}, {'cancel': n}
  from the worker  {'ready': {...}} or {'refused': text}, once
                   {'number': n, 'progress': [windows, of all]}
                   {'number': n, 'found': {...}}, what is finished so far
                   {'number': n, 'done': {...}}, {'error': text} or
                   {'cancelled': true}, at the end of a task
"""

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]


class WorkerEnded(Exception):
  """The process has ended."""


class WorkerProcess:
  """One worker."""

  def __init__(self, command: Sequence[str]):
    """Starts it.

    Args:
      command: the program and its arguments.
    """
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      encoding='utf-8',
      # Ctrl-C is for the server, which then ends the worker.
      start_new_session=True,
    )
    self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=self._listen, daemon=True).start()

  @property
  def pid(self) -> int:
    """The number of the process."""
    return self._process.pid

  @property
  def is_alive(self) -> bool:
    """Whether the process runs."""
    return self._process.poll() is None

  def send(self, message: Message) -> None:
    """Sends a message.

    Raises:
      WorkerEnded: nobody takes it.
    """
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(json.dumps(message) + '\n')
      self._process.stdin.flush()
    except (OSError, ValueError) as error:
      raise WorkerEnded from error

  def receive(self, seconds: float) -> Message | None:
    """Returns the next message; None if none comes within some seconds.

    Raises:
      WorkerEnded: none will come.
    """
    try:
      message = self._messages.get(timeout=seconds)
    except queue.Empty:
      return None
    if message is None:
      self._messages.put(None)
      raise WorkerEnded
    return message

  def end(self) -> None:
    """Kills the process, and waits for its end."""
    self._process.kill()
    self._process.wait()
    assert self._process.stdin is not None
    with contextlib.suppress(OSError):
      self._process.stdin.close()

  def _listen(self):
    assert self._process.stdout is not None
    with self._process.stdout as lines:
      for line in lines:
        self._messages.put(json.loads(line))
    self._messages.put(None)
