"""Runs collectives on host values: broadcast, barrier and gather.

Every process of a run must call the collectives in the same order: a process
that skips one leaves the others waiting. `is_first`, `local_indices` and
`process_count` only ask JAX, and may be called anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cdm.distributed import exit_codes

if TYPE_CHECKING:
  import numpy as np

T = TypeVar('T')


class FirstProcessFailed(Exception):
  """A function failed in process 0, so this process cannot go on either."""

  def __init__(self, sentence: str, ending: exit_codes.ExitCode):
    super().__init__(sentence)
    self.ending = ending


def is_first() -> bool:
  """Returns whether this is process 0, which writes reports and prints."""
  import jax

  return jax.process_index() == 0


def broadcast_from_first(value: Any) -> Any:
  """Returns process 0's value, in every process.

  A collective: every process must call it, in the same order.

  Args:
    value: int, bool, or NumPy array of the same shape in all processes.
  """
  import jax

  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return multihost_utils.broadcast_one_to_all(value)


def call_in_first(
  function: Callable[[], Any], *, errors: tuple[type[Exception], ...] = ()
) -> Any:
  """Calls a function in process 0 alone, and returns its result in all.

  What is read from storage so is the same in every process, even where the
  file system of another host still shows an older state. A collective: every
  process must call it, in the same order.

  Args:
    function: returns a value that JSON can hold.
    errors: types of errors that are raised in the other processes as they are
      in process 0; each can be made from its message alone.

  Raises:
    FirstProcessFailed: in the other processes, if the function raised an error
      of another type in process 0.
  """
  if process_count() == 1:
    return function()
  answer, caught = {}, None
  if is_first():
    try:
      answer = {'value': function()}
    except Exception as error:  # noqa: BLE001 (raised again below)
      caught = error
      answer = {
        'type': next((t.__name__ for t in errors if type(error) is t), None),
        'text': exit_codes.sentence(error),
        'ending': exit_codes.classify(error),
      }
  answer = broadcast_object(answer)
  if caught is not None:
    raise caught
  if 'value' in answer:
    return answer['value']
  for error_type in errors:
    if error_type.__name__ == answer['type']:
      raise error_type(answer['text'])
  raise FirstProcessFailed(
    f'process 0: {answer["text"]}', exit_codes.ExitCode(*answer['ending'])
  )


def arrays_from_first(
  function: Callable[[], Iterable[np.ndarray]],
) -> list[np.ndarray]:
  """Calls a function in process 0 alone, and returns its arrays in all.

  So images that every process needs whole are read and decoded once. A
  collective, see `call_in_first`.

  Args:
    function: returns arrays of numbers.

  Raises:
    FirstProcessFailed: in the other processes, if the function raised an error.
  """
  import numpy as np

  found: list[np.ndarray] = []

  def shapes():
    found.extend(np.asarray(x) for x in function())
    return [(x.dtype.name, x.shape) for x in found]

  kinds = call_in_first(shapes)
  if not is_first():
    found = [np.zeros(shape, dtype) for dtype, shape in kinds]
  return [np.asarray(broadcast_from_first(x)) for x in found]


def barrier(name: str) -> None:
  """Waits until every process has called it.

  Args:
    name: names this barrier; the same in all processes.
  """
  import jax

  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def local_indices(count: int) -> range:
  """Returns this process's share of the indices 0 to count - 1.

  Every process_count()-th index belongs to one process, so the shares differ by
  one index at most.
  """
  import jax

  return range(jax.process_index(), count, jax.process_count())


def in_turn(parts: Sequence[Sequence[T]]) -> list[T]:
  """Returns the values of all indices, given those of every process.

  Args:
    parts: for every process, the values of its `local_indices`.
  """
  count = sum(map(len, parts))
  return [parts[i % len(parts)][i // len(parts)] for i in range(count)]


def process_count() -> int:
  """Returns the number of processes of the run."""
  import jax

  return jax.process_count()


def gather_objects(value: Any) -> list[Any]:
  """Returns the list of every process's value, the same in all processes.

  A collective: every process must call it, in the same order.

  Args:
    value: anything that JSON can hold; floats come back exactly.
  """
  if process_count() == 1:
    return [value]
  return [json.loads(text) for text in gather_bytes(json.dumps(value).encode())]


def broadcast_object(value: Any) -> Any:
  """Returns process 0's value, in every process.

  A collective: every process must call it, in the same order. The bytes that a
  process holds do not grow with the number of processes, as they do in
  `gather_objects`.

  Args:
    value: anything that JSON can hold; that of other processes is ignored.
  """
  if process_count() == 1:
    return value
  text = json.dumps(value).encode() if is_first() else b''
  return json.loads(_broadcast_bytes(text))


def _broadcast_bytes(data: bytes) -> bytes:
  """Returns process 0's bytes, in every process."""
  import numpy as np
  from jax.experimental import multihost_utils

  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  sent = multihost_utils.broadcast_one_to_all(_padded(data, size))
  return np.asarray(sent)[:size].tobytes()


def _padded(text: bytes, size: int) -> np.ndarray:
  """Returns bytes as uint8, with zeros up to a power of two.

  A collective is compiled for every size, so there must be few of them.
  """
  import numpy as np

  padded = np.zeros(
    max(1 << 10, 1 << (max(size, 1) - 1).bit_length()), np.uint8
  )
  padded[: len(text)] = np.frombuffer(text, np.uint8)
  return padded


def gather_bytes(text: bytes) -> list[bytes]:
  """Returns the list of every process's bytes, the same in all processes.

  A collective: every process must call it, in the same order.
  """
  import numpy as np
  from jax.experimental import multihost_utils

  sizes = multihost_utils.process_allgather(np.int32(len(text)))
  rows = multihost_utils.process_allgather(_padded(text, int(sizes.max())))
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]
