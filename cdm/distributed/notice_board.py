"""Lets every process leave a small note for process 0, and nobody wait.

The notes lie in the store of JAX's coordination service. A collective would
make every process wait for the slowest one, and for the device.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from typing import Any

_PREFIX = 'cdm/notes'


class NoticeBoard:
  """The newest note of every process, read by process 0.

  A thread of its own talks to the service, so that one that answers late holds
  up nothing. A note that could not be left or read is left out.
  """

  def __init__(self, store: Any, process: int, name: str):
    """Begins; the thread ends with the process.

    Args:
      store: client of JAX's coordination service; of its methods,
        key_value_set and key_value_dir_get are used.
      process: index of this process.
      name: name of the board, the same in every process.
    """
    self._store, self._process = store, process
    self._folder = f'{_PREFIX}/{name}'
    self._notes: dict[int, Any] = {}
    self._pending: queue.Queue[str] = queue.Queue(1)
    threading.Thread(
      target=self._serve, name=f'notice_board_{name}', daemon=True
    ).start()

  def leave(self, note: Any) -> None:
    """Replaces this process's note, soon.

    Args:
      note: anything that JSON can hold.
    """
    # While the service does not answer, notes are left out.
    with contextlib.suppress(queue.Full):
      self._pending.put_nowait(json.dumps(note))

  def notes(self) -> dict[int, Any]:
    """Returns {process: its note} as read after the note before; on process 0.

    A process whose note has not come yet is absent.
    """
    return self._notes

  def _serve(self):
    while True:
      text = self._pending.get()
      with contextlib.suppress(Exception):
        key = f'{self._folder}/{self._process}'
        self._store.key_value_set(key, text, allow_overwrite=True)
        if self._process == 0:
          found = self._store.key_value_dir_get(f'{self._folder}/')
          self._notes = {
            int(key.rpartition('/')[2]): json.loads(value)
            for key, value in found
          }


def open_board(name: str) -> NoticeBoard | None:
  """Returns the board of this name; None in a run of one process."""
  import jax

  # JAX has no public name for the client, see `peer_monitor`.
  from jax._src import distributed

  client = distributed.global_state.client
  if jax.process_count() == 1 or client is None:
    return None
  return NoticeBoard(client, jax.process_index(), name)
