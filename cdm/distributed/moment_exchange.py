"""Merges large arrays of all processes, without one broadcast for each.

Every process has an array [D, E] and all of them are merged row by row, in the
order of the processes. Process p gets rows p D/P to (p + 1) D/P of all arrays
(one all-to-all), merges them, and sends the result to all (one all-gather). So
a process sends and receives twice the bytes of one array, however many
processes there are, and every number is rounded as by one process that merges
whole arrays.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'processes'


def merge_rows(
  array: np.ndarray, merge: Callable[[np.ndarray, range], np.ndarray]
) -> np.ndarray:
  """Merges the arrays of all processes; the result is the same in all.

  A collective: every process must call it, with an array of the same shape.

  Args:
    array: float64 [D, E], what this process has.
    merge: `merge(parts, rows)` merges float64 [P, d, E], these rows of every
      process's array, to float64 [d, E].

  Returns:
    float64 [D, E].
  """
  size, count = len(array), jax.process_count()
  if count == 1:
    return merge(array[None], range(size))
  each = -(-size // count)
  padded = np.zeros((each * count, *array.shape[1:]), np.float64)
  padded[:size] = array
  mesh = Mesh(_one_device_each(), (AXIS,))
  parts = _reshard(padded[None], mesh, PartitionSpec(None, AXIS))
  first = jax.process_index() * each
  rows = range(min(first, size), min(first + each, size))
  merged = np.zeros((each, *array.shape[1:]), np.float64)
  merged[: len(rows)] = merge(parts[:, : len(rows)], rows)
  return _reshard(merged, mesh, PartitionSpec())[:size]


def _one_device_each() -> np.ndarray:
  """Returns the first device of every process, in the order of processes."""
  first = {}
  for device in jax.devices():
    first.setdefault(device.process_index, device)
  return np.array([first[index] for index in sorted(first)])


def _reshard(
  local: np.ndarray, mesh: Mesh, wanted: PartitionSpec
) -> np.ndarray:
  """Returns this process's part of an array that is split in another way.

  Args:
    local: float64, this process's part of the array, split along axis 0.
    mesh: a device of every process.
    wanted: how the array is split then.
  """
  # Devices may have no float64, so its bits travel as pairs of integers.
  bits = np.ascontiguousarray(local).view(np.uint32)
  given = jax.make_array_from_process_local_data(
    NamedSharding(mesh, PartitionSpec(AXIS)),
    bits,
    (bits.shape[0] * mesh.size, *bits.shape[1:]),
  )
  move = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, wanted))
  moved = np.asarray(move(given).addressable_data(0))
  return np.ascontiguousarray(moved).view(np.float64)
