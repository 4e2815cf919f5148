"""Writes and reads the arrays of a training state, with Orbax.

Each array is written by one of the processes that hold a copy of it, and read
by one, which sends it to the others (`replica_shares`). So no process has more
to do because there are more of them, and the bytes read are those of one state.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from cdm.checkpointing import (
  orbax_output,
  replica_broadcast,
  replica_shares,
  write_errors,
)
from cdm.distributed import collectives


class ReadElsewhereFailed(Exception):
  """Another process could not read its share of a checkpoint."""


@functools.cache
def handler() -> ocp.PyTreeCheckpointHandler:
  """Returns the object of Orbax that writes and reads a tree of arrays.

  Of two files that it could write there are none: the list of every array's
  devices, which nobody reads and which grows with the number of devices, and
  one list of all arrays for every process.
  """
  types = ocp.type_handlers
  orbax_output.silence()
  arrays = types.ArrayHandler(
    use_replica_parallel=False,
    enable_write_sharding_file=False,
    array_metadata_store=None,
  )
  numbers = types.ScalarHandler()
  return ocp.PyTreeCheckpointHandler(
    type_handler_registry=types.create_type_handler_registry(
      (int, numbers),
      (float, numbers),
      (np.number, numbers),
      (np.ndarray, types.NumpyHandler()),
      (jax.Array, arrays),
    )
  )


def begin_to_write(path: epath.Path, state: Any) -> Sequence[Any]:
  """Copies a state to the host's memory, and starts to write it.

  Args:
    path: folder of the arrays; Orbax makes it.
    state: tree of arrays. It may be donated when this returns.

  Returns:
    Futures, whose `result(timeout)` waits until this process has written its
    share. When all processes have, `merge` completes the folder.
  """
  arguments = ocp.args.PyTreeSave(replica_shares.turned(state))

  def begin():
    return asyncio.run(handler().async_save(path, args=arguments)) or ()

  # In a thread, because the caller may run an event loop, as notebooks do.
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    return pool.submit(begin).result()


def merge(path: epath.Path) -> None:
  """Joins what all processes have written; for one process only."""
  handler().finalize(path)


def own_folder(index: int) -> str:
  """Returns the name of the folder into which a process writes its share."""
  return f'ocdbt.process_{index}'


def read(path: epath.Path, target: Any, *, partial: bool = False) -> Any:
  """Reads arrays of a state.

  A collective: every process must call it, in the same order.

  Args:
    path: folder of the arrays.
    target: tree of ShapeDtypeStructs with shardings, where each array goes.
    partial: whether the folder holds more than `target`, which then is made of
      dicts.

  Returns:
    The same tree of jax.Array.

  Raises:
    ReadElsewhereFailed: another process raised an error.
    Exception: what Orbax raises for a missing or damaged file, of any type.
  """
  structs, structure = jax.tree.flatten(target)
  stored = [_as_stored(struct) for struct in structs]
  chosen: list[replica_shares.Share | None] = [None] * len(stored)
  if collectives.process_count() > 1:
    chosen = replica_shares.shares(stored)
  failed, arrays = None, []
  try:
    arrays = _read_share(
      path, jax.tree.unflatten(structure, stored), chosen, partial=partial
    )
  except Exception as error:
    failed = error
  _check_all(failed)
  sent = [
    replica_broadcast.Sent(struct, share.axes, array)
    for struct, share, array in zip(stored, chosen, arrays, strict=True)
    if share is not None
  ]
  received = iter(replica_broadcast.broadcast(sent))
  arrays = [
    array if share is None else next(received)
    for share, array in zip(chosen, arrays, strict=True)
  ]
  return jax.tree.unflatten(
    structure,
    [_as_asked(a, struct) for a, struct in zip(arrays, structs, strict=True)],
  )


def _read_share(path, target, chosen, *, partial):
  """Returns the leaves that this process reads, None for the others."""
  structs, structure = jax.tree.flatten(target)
  index = jax.process_index()
  wanted: list[Any] = []
  for struct, share in zip(structs, chosen, strict=True):
    if share is None:
      wanted.append(struct)
    elif index in share.processes():
      place = share.alone(struct.sharding.spec)
      wanted.append(
        jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=place)
      )
    else:
      wanted.append(None)
  if not any(struct is not None for struct in wanted):
    return wanted
  if partial:
    # What is left out of the tree is not read.
    item = _without_none(jax.tree.unflatten(structure, wanted))
  else:
    item = jax.tree.unflatten(
      structure,
      [ocp.PLACEHOLDER if struct is None else struct for struct in wanted],
    )
  arguments = ocp.args.PyTreeRestore(
    item, restore_args=jax.tree.map(_arguments, item), partial_restore=partial
  )
  restored = handler().restore(path, args=arguments)
  found = iter(
    leaf for leaf in jax.tree.leaves(restored) if leaf is not ocp.PLACEHOLDER
  )
  return [None if struct is None else next(found) for struct in wanted]


def _arguments(struct: Any) -> Any:
  if struct is ocp.PLACEHOLDER:
    return ocp.RestoreArgs()
  return ocp.checkpoint_utils.construct_restore_args(struct)


def _without_none(tree: Any) -> Any:
  """Returns nested dicts without the entries that are None, or become empty."""
  if not isinstance(tree, dict):
    return tree
  kept = {key: _without_none(value) for key, value in tree.items()}
  return {k: v for k, v in kept.items() if v is not None and v != {}}


def _check_all(failed: Exception | None) -> None:
  """Raises in every process if one could not read its share."""
  text = None if failed is None else write_errors.first_line(failed)
  texts = collectives.gather_objects(text)
  if failed is not None:
    raise failed
  for index, other in enumerate(texts):
    if other is not None:
      raise ReadElsewhereFailed(f'process {index}: {other}')


def _as_stored(struct: Any) -> Any:
  """Returns the struct that an array is stored as: a random key as its data."""
  if not jax.dtypes.issubdtype(struct.dtype, jax.dtypes.prng_key):
    return struct
  data = jax.eval_shape(jax.random.key_data, struct)
  sharding = struct.sharding
  if isinstance(sharding, jax.sharding.NamedSharding):
    sharding = jax.sharding.NamedSharding(
      sharding.mesh, jax.sharding.PartitionSpec(*sharding.spec)
    )
  return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)


def _as_asked(array: Any, struct: Any) -> Any:
  if not jax.dtypes.issubdtype(struct.dtype, jax.dtypes.prng_key):
    return array
  found: list[Any] = []
  # JAX tells the kind of a key only of an array, for which tracing will do.
  jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), struct)
  wrap = functools.partial(jax.random.wrap_key_data, impl=found[0])
  return jax.jit(wrap, out_shardings=struct.sharding)(array)
