"""Operations that every process of a run performs together, on host values.

A process that skips one of them leaves the others waiting, so all processes
call them in the same order.
"""

import json


def is_first():
  """True in the process that writes reports and talks."""
  import jax

  return jax.process_index() == 0


def broadcast_from_first(value):
  """-> what process 0 has; all processes call it at the same place.

  Args:
    value: int, bool, or NumPy array of the same shape everywhere.
  """
  import jax

  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return multihost_utils.broadcast_one_to_all(value)


def barrier(name):
  """Returns when every process has come here. name: what is waited for."""
  import jax

  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def local_indices(count):
  """-> range over 0 to count - 1: what falls to this process."""
  import jax

  return range(jax.process_index(), count, jax.process_count())


def process_count():
  """-> number of processes of the run."""
  import jax

  return jax.process_count()


def gather_objects(value):
  """-> [what each process gave], the same list in all of them.

  Args:
    value: anything that JSON can hold; floats come back exactly.
  """
  if process_count() == 1:
    return [value]
  return [json.loads(text) for text in gather_bytes(json.dumps(value).encode())]


def gather_arrays(arrays):
  """Yields what each process gave, one after the other, in all of them.

  So that memory does not grow with the number of processes.

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
  np.savez(file, **arrays)
  mine = np.frombuffer(file.getbuffer(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(mine.size))
  for index, size in enumerate(sizes):
    is_source = index == jax.process_index()
    given = mine if is_source else np.zeros(int(size), np.uint8)
    text = multihost_utils.broadcast_one_to_all(given, is_source=is_source)
    with np.load(io.BytesIO(np.asarray(text).tobytes())) as archive:
      yield {name: archive[name] for name in archive.files}


def gather_bytes(text):
  """-> [the bytes that each process gave], the same list in all of them."""
  import numpy as np
  from jax.experimental import multihost_utils

  mine = np.frombuffer(text, np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(mine.size))
  filled = np.zeros(int(sizes.max()), np.uint8)
  filled[: mine.size] = mine
  rows = multihost_utils.process_allgather(filled)
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]
