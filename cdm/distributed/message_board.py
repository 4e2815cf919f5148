"""Passes messages between the processes of a run, from any thread.

They go through the key-value store of JAX's coordination service, which process
0 runs. No device takes part, so that a thread may wait for a message while the
main thread trains.
"""

import json
import time
from collections.abc import Collection
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

  def wait_for_all(
    self, keys: Collection[str], seconds: float
  ) -> dict[str, Any]:
    """Waits until a value is posted under each of several keys.

    While it waits for one, the others come, and all that have come are fetched
    with one question: for 512 keys it asks about ten times, not 512 times.

    Returns:
      {key: value}, without those that were not posted in time.
    """
    end = time.monotonic() + seconds
    found: dict[str, Any] = {}
    waits = 0
    for key in keys:
      if key in found:
        continue
      try:
        found[key] = self.wait_for(key, end - time.monotonic())
      except TimeoutError:
        continue
      waits += 1
      # After 1, 2, 4, ... waits: else values that come one by one, in the order
      # of their keys, would be fetched again and again.
      if waits & (waits - 1) == 0 and len(found) < len(keys):
        found |= self._posted()
    return found

  def _posted(self) -> dict[str, Any]:
    """Returns the values of all keys that are posted now."""
    listed = self._store.key_value_dir_get(self._prefix)
    return {
      key.removeprefix(self._prefix): json.loads(text) for key, text in listed
    }

  def clear(self) -> None:
    """Removes all values, once no process waits for one any more."""
    self._store.key_value_delete(self._prefix)
