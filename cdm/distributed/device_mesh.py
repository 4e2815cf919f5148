"""Builds the device mesh, and moves batches from the host onto it and back.

The mesh has three axes: `data` and `fsdp` split the examples of a batch, `fsdp`
and `tensor` split the parameters (see `partitioning`).
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cdm.distributed import slices

AXES = ('data', 'fsdp', 'tensor')


BATCH_AXES = ('data', 'fsdp')
# The size of `fsdp` that leaves the choice to `chosen_fsdp`.
CHOSEN = 0


def make_mesh(
  *,
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Iterable[jax.Device] | None = None,
  num_slices: int = 1,
) -> Mesh:
  """Arranges devices in a mesh with axes `data`, `fsdp` and `tensor`.

  The slices (see `slices`) follow each other along `data`, so that `fsdp` and
  `tensor` use fast links only.

  Args:
    data: number of devices along `data`. At most one axis may be -1: it takes
      the devices that are left.
    fsdp: number of devices along `fsdp`, or -1, or 0 for `chosen_fsdp`.
    tensor: number of devices along `tensor`, or -1.
    devices: the devices to use; all devices of the run by default.
    num_slices: number of slices that devices which report none stand for.

  Raises:
    ValueError: if the axes do not multiply to the number of devices, or `fsdp`
      and `tensor` do not fit into a slice.
  """
  devices = jax.devices() if devices is None else list(devices)
  if fsdp == CHOSEN:
    grouped = slices.by_slice(
      devices, inner=max(tensor, 1), num_slices=num_slices
    )
    fsdp = _fsdp(data, tensor, slices.devices_per_host(grouped))
  shape = _fill((data, fsdp, tensor), len(devices))
  inner = shape[1] * shape[2]
  grouped = slices.by_slice(devices, inner=inner, num_slices=num_slices)
  if len(grouped[0]) % inner:
    raise ValueError(
      f'The mesh is {_text(shape)}, but fsdp * tensor = {inner} does not fit '
      f'into the {len(grouped)} slices (or GPU hosts) of {len(grouped[0])} '
      'devices each, which only the slow network joins; choose fsdp and '
      f'tensor so that their product divides {len(grouped[0])}.'
    )
  inside = (shape[0] // len(grouped), *shape[1:])
  # As `mesh_utils.create_hybrid_device_mesh` does, but for devices that report
  # no slice as well. An axis of a torus is split only if there is no other way.
  arrays = [
    mesh_utils.create_device_mesh(inside, each, allow_split_physical_axes=True)
    for each in grouped
  ]
  # Auto: XLA chooses the sharding of every array that no rule determines.
  axis_types = (AxisType.Auto,) * len(AXES)
  return Mesh(np.concatenate(arrays), AXES, axis_types=axis_types)


def _fsdp(data: int, tensor: int, per_host: int | None) -> int:
  """Returns the size of `fsdp` that the config leaves open."""
  if data != -1:
    return 1 if tensor == -1 else -1  # what the other axes leave
  return 1 if tensor < 1 else chosen_fsdp(per_host, tensor)


def chosen_fsdp(per_host: int | None, tensor: int = 1) -> int:
  """Returns the size of `fsdp` for runs that state none (`mesh.fsdp=0`).

  On several hosts every device would otherwise update all moments and all of
  the EMA, a time that does not shrink with the number of devices. The devices
  of one host share this work, over their fast links.

  Args:
    per_host: see `slices.devices_per_host`.
    tensor: size of the axis `tensor`.

  Returns:
    1 on one host; else the devices of a host that `tensor` leaves, or the
    largest power of two that divides them, because it divides channels too.
  """
  if per_host is None or per_host % tensor:
    return 1
  left = per_host // tensor
  return left & -left


def _text(shape: tuple[int, ...]) -> str:
  return ', '.join(f'{a}={n}' for a, n in zip(AXES, shape, strict=True))


def _fill(shape: tuple[int, ...], num_devices: int) -> tuple[int, ...]:
  given = _text(shape)
  if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
    raise ValueError(
      f'The mesh is {given}; every axis must be at least 1, but at most one is '
      '-1 (it takes the devices that are left), and fsdp may be 0 (chosen).'
    )
  known = math.prod(n for n in shape if n != -1)
  filled = tuple(num_devices // known if n == -1 else n for n in shape)
  if math.prod(filled) != num_devices:
    raise ValueError(
      f'The mesh is {given}, but there are {num_devices} devices, to which the '
      'axes must multiply; set one axis to -1 to use all devices.'
    )
  return filled


def num_batch_shards(mesh: Mesh) -> int:
  """Returns the number of parts that the global batch is split into."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Returns which examples of a global batch this process must provide.

  If `tensor`, which does not split the batch, runs across several processes,
  these processes provide the same examples.

  Returns:
    int [b], indices into the global batch, ascending.
  """
  places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  starts = {
    rows.indices(batch_size)[:2]
    # JAX's annotation says that the indices may be None; here they never are.
    for (rows,) in places.values()  # ty: ignore[not-iterable]
  }
  return np.concatenate([np.arange(*ends) for ends in sorted(starts)])


def check_batch(batch_size: int, mesh: Mesh, *, accumulation: int = 1) -> None:
  """Raises ValueError unless the global batch divides over the mesh.

  Args:
    batch_size: number of examples of the global batch.
    mesh: the mesh.
    accumulation: number of microbatches that each device cuts its part of the
      batch into, to accumulate their gradients.
  """
  shards = num_batch_shards(mesh)
  unit = shards * accumulation
  if accumulation < 1:
    raise ValueError(f'accumulation is {accumulation}; it must be at least 1.')
  if batch_size > 0 and batch_size % unit == 0:
    return
  below = batch_size // unit * unit
  near = f'{below} or {below + unit}' if below > 0 else f'{unit}'
  parts = f'{shards} devices'
  if accumulation > 1:
    parts += f' times {accumulation} accumulated microbatches'
  raise ValueError(
    f'Global batch {batch_size} does not divide over {parts}; use a multiple '
    f'of {unit}, e.g. {near}.'
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: axis 0 is split over `data` and `fsdp`."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def split_batch(tree: Any, mesh: Mesh | None) -> Any:
  """Constrains a batch to `batch_sharding`; for use inside jit.

  Args:
    tree: tree of arrays [B, ...].
    mesh: the mesh, or None for a single device, on which nothing is split.

  Returns:
    The same tree, constrained.
  """
  if mesh is None:
    return tree
  place = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(x, place), tree
  )


def in_mesh(
  function: Callable[..., Any], mesh: Mesh | None
) -> Callable[..., Any]:
  """Returns a function during whose tracing JAX knows the mesh.

  A network chooses the kernels of its devices by it, and splits them, see
  `models.attention_kernels`. Apply it inside `jax.jit`.

  Args:
    function: what is traced.
    mesh: the mesh that its batches are split over; None is a single device.
  """
  if mesh is None:
    return function

  @functools.wraps(function)
  def traced(*args, **kwargs):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **kwargs)

  return traced


def padded_batch_size(count: int, mesh: Mesh) -> int:
  """Rounds a batch size up to a multiple of `num_batch_shards`."""
  shards = num_batch_shards(mesh)
  return -(-count // shards) * shards


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array with a full copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Any, mesh: Mesh) -> Any:
  """Moves a host batch onto the mesh, as global arrays.

  Args:
    batch: tree of NumPy arrays [b, ...], the examples that `local_rows` assigns
      to this process.
    mesh: the mesh.

  Returns:
    The same tree of jax.Array [B, ...], split over `data` and `fsdp`.

  Raises:
    ValueError: if the global batch does not divide over the mesh.
  """
  shards = num_batch_shards(mesh)
  here = len(local_rows(mesh, shards))
  b = jax.tree.leaves(batch)[0].shape[0]
  check_batch(b * shards // here, mesh)
  sharding = batch_sharding(mesh)
  if here == shards:
    return jax.device_put(batch, sharding)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      sharding, x, (b * shards // here, *x.shape[1:])
    ),
    batch,
  )


def local_images(array: jax.Array) -> list[tuple[int, np.ndarray]]:
  """Returns the rows of a global array that this process holds.

  A row that several devices hold is returned once, in one process.

  Args:
    array: [N, ...], for example a batch of images.

  Returns:
    [(index of the row, array [...]), ...], ascending.
  """
  rows = []
  for shard in array.addressable_shards:
    if shard.replica_id == 0:
      first = shard.index[0].start or 0
      rows += [(first + i, x) for i, x in enumerate(np.asarray(shard.data))]
  return sorted(rows, key=lambda pair: pair[0])


def local_part(array: jax.Array) -> np.ndarray:
  """Returns the rows of a global array that `local_rows` names, ascending.

  It undoes `shard_batch`. Nothing is exchanged.

  Args:
    array: [N, ...], split over the mesh as a batch.
  """
  parts = {
    shard.index[0].start or 0: shard.data for shard in array.addressable_shards
  }
  return np.concatenate([np.asarray(parts[first]) for first in sorted(parts)])


def row_holders(mesh: Mesh | None, batch_size: int) -> np.ndarray:
  """Returns the process in which `local_images` returns each row of a batch.

  Args:
    mesh: the mesh that the batch is split over; None is one device.
    batch_size: number of rows; it divides over the mesh.

  Returns:
    int [batch_size], indices of processes.
  """
  holders = np.zeros(batch_size, int)
  if mesh is None:
    return holders
  seen = set()
  places = batch_sharding(mesh).devices_indices_map((batch_size,))
  for device, (rows,) in places.items():
    first, last, _ = rows.indices(batch_size)
    if first not in seen:  # of its replicas the first
      seen.add(first)
      holders[first:last] = device.process_index
  return holders


def fetch(array: jax.Array) -> np.ndarray:
  """Returns a whole global array on the host, in every process.

  A collective, unless all devices of the array belong to this process.
  """
  if array.is_fully_addressable:
    return np.asarray(array)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(array, tiled=True)
