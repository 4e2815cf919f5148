"""The device mesh, and how batches of host arrays come onto it and back.

The mesh has three axes: `data` and `fsdp` share out the examples of a batch,
`fsdp` and `tensor` share out the parameters (see `partitioning`).
"""

import math

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')


BATCH_AXES = ('data', 'fsdp')


def make_mesh(*, data=-1, fsdp=1, tensor=1, devices=None):
  """Arranges devices in a mesh with axes `data`, `fsdp` and `tensor`.

  Args:
    data: devices along `data`; -1 fills one axis with what is left.
    fsdp: devices along `fsdp`, or -1.
    tensor: devices along `tensor`, or -1.
    devices: the devices to use; all of them by default.

  Returns:
    jax.sharding.Mesh.

  Raises:
    ValueError: if the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  shape = _fill((data, fsdp, tensor), len(devices))
  # Auto: the compiler places what the rules leave open.
  axis_types = (AxisType.Auto,) * len(AXES)
  return jax.make_mesh(shape, AXES, axis_types=axis_types, devices=devices)


def _fill(shape, num_devices):
  given = ', '.join(f'{a}={n}' for a, n in zip(AXES, shape, strict=True))
  if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
    raise ValueError(
      f'The mesh is {given}; every axis is at least 1, and at most one is -1 '
      '(it takes the devices that are left).'
    )
  known = math.prod(n for n in shape if n != -1)
  filled = tuple(num_devices // known if n == -1 else n for n in shape)
  if math.prod(filled) != num_devices:
    raise ValueError(
      f'The mesh is {given}, and there are {num_devices} devices: the axes '
      'must multiply to that number; put -1 in one of them to fill it.'
    )
  return filled


def num_batch_shards(mesh):
  """-> into how many parts the global batch is split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def local_rows(mesh, batch_size):
  """-> int [b], ascending: the images of a global batch on this process.

  Where an axis that does not split the batch runs across processes, these
  have the same images.
  """
  places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  starts = {rows.indices(batch_size)[:2] for (rows,) in places.values()}
  return np.concatenate([np.arange(*ends) for ends in sorted(starts)])


def check_batch(batch_size, mesh, *, accumulation=1):
  """Raises ValueError unless the global batch divides over the mesh."""
  shards = num_batch_shards(mesh)
  unit = shards * accumulation
  if accumulation < 1:
    raise ValueError(f'accumulation is {accumulation}; it is at least 1.')
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


def batch_sharding(mesh):
  """Splits axis 0 over `data` and `fsdp`; every other axis is whole."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def split_batch(tree, mesh):
  """Inside jit: arrays [B, ...] split along axis 0, see `batch_sharding`.

  mesh: None is one device, where nothing is split.
  """
  if mesh is None:
    return tree
  place = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(x, place), tree
  )


def padded(count, mesh):
  """-> the least multiple of `num_batch_shards` that is not below count."""
  shards = num_batch_shards(mesh)
  return -(-count // shards) * shards


def replicated(mesh):
  """A full copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch, mesh):
  """Host batch -> global arrays.

  Args:
    batch: tree of NumPy arrays [b, ...], the `local_rows` of the batch.
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


def local_images(array):
  """-> [(n, array [...]), ...], ascending: rows of a global array held here.

  A row that several devices hold is given by one of them, in one process.
  """
  found = []
  for shard in array.addressable_shards:
    if shard.replica_id == 0:
      first = shard.index[0].start or 0
      found += [(first + i, x) for i, x in enumerate(np.asarray(shard.data))]
  return sorted(found, key=lambda pair: pair[0])


def fetch(array):
  """-> np.ndarray of all of a global array, in every process."""
  if array.is_fully_addressable:
    return np.asarray(array)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(array, tiled=True)
