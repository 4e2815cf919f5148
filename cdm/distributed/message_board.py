"""Passes messages between the processes of a run, from any thread.

They go through the key-value store of JAX's coordination service, which process
0 runs. No device takes part, so that a thread may wait for a message while the
main thread trains.
"""

import json
from typing import Any


class Board:
  """Messages of one matter; the name tells it from all others of the run."""

  def __init__(self, name: str, store: Any = None):
    """Opens the board, which needs no other process.

    Args:
      name: the same in all processes, and used once in the life of a run.
      store: client of JAX's coordination service; by default that of the run.
    """
    self._prefix = f'cdm/{name}/'
    self._given = store

  @property
  def _store(self) -> Any:
    if self._given is not None:
      return self._given
    # JAX has no public name for the client; Orbax and Flax import this one too.
    from jax._src import distributed

    return distributed.global_state.client

  def post(self, key: str, value: Any) -> None:
    """Shows a value that JSON can hold to all processes, under a key."""
    self._store.key_value_set(self._prefix + key, json.dumps(value))

  def wait_for(self, key: str, seconds: float) -> Any:
    """Waits until a process has posted a value under a key, and returns it.

    Raises:
      TimeoutError: it was not posted in time.
    """
    milliseconds = max(1, int(seconds * 1000))
    try:
      text = self._store.blocking_key_value_get(
        self._prefix + key, milliseconds
      )
    except Exception as error:
      # The type of the error is private to JAX.
      if 'DEADLINE_EXCEEDED' not in str(error):
        raise
      raise TimeoutError(
        f'no answer from the other processes within {seconds:.0f} s'
      ) from error
    return json.loads(text)

  def clear(self) -> None:
    """Removes all values, once no process waits for one any more."""
    self._store.key_value_delete(self._prefix)
