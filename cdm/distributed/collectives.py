"""Runs collectives on host values: broadcast, barrier and gather.

Every process of a run must call the collectives in the same order: a process
that skips one leaves the others waiting. `is_first`, `local_indices` and
`process_count` only ask JAX, and may be called anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import numpy as np


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


def gather_arrays(
  arrays: dict[str, np.ndarray],
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the arrays of every process in turn, the same in all processes.

  A collective: every process must call it, in the same order, and consume the
  whole iterator. The arrays of one process are sent at a time, so memory does
  not grow with the number of processes.

  Args:
    arrays: {name: NumPy array}; float64 stays float64.
  """
  if process_count() == 1:
    yield arrays
    return
  import io

  import jax
  import numpy as np
  from jax.experimental import multihost_utils

  file = io.BytesIO()
  # NumPy's stub takes any keyword for the flag `allow_pickle`.
  np.savez(file, **arrays)  # ty: ignore[invalid-argument-type]
  local = np.frombuffer(file.getbuffer(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(local.size))
  for index, size in enumerate(sizes):
    is_source = index == jax.process_index()
    buffer = local if is_source else np.zeros(int(size), np.uint8)
    sent = multihost_utils.broadcast_one_to_all(buffer, is_source=is_source)
    with np.load(io.BytesIO(np.asarray(sent).tobytes())) as archive:
      yield {name: archive[name] for name in archive.files}


def gather_bytes(text: bytes) -> list[bytes]:
  """Returns the list of every process's bytes, the same in all processes.

  A collective: every process must call it, in the same order.
  """
  import numpy as np
  from jax.experimental import multihost_utils

  local = np.frombuffer(text, np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(local.size))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: local.size] = local
  rows = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]
