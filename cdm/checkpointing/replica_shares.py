"""Shares out the arrays of a state over the processes that hold copies of them.

Of an array that every host holds, one host is to write the checkpoint's copy,
or to read it for the others. Orbax would cut each array into as many pieces as
there are copies, 10 KB each on 64 hosts, or leave all to host 0. Here every
array stays whole, or one piece for each part that the mesh splits it into, and
the arrays are dealt out so that all hosts have about as many bytes.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

# A host that has less to do than this is left out: opening its files would
# take longer than their bytes.
LEAST_BYTES = 64 << 20


class Share(NamedTuple):
  """The copy of an array that is written, or read, for all the others.

  Attributes:
    mesh: the mesh of the array, turned so that this copy comes first.
    axes: the axes of the mesh that only repeat the array.
  """

  mesh: Mesh
  axes: tuple[str, ...]

  def sharding(self, spec: jax.sharding.PartitionSpec) -> NamedSharding:
    """Returns the same sharding of the array, with this copy first."""
    return NamedSharding(self.mesh, spec)

  def alone(self, spec: jax.sharding.PartitionSpec) -> NamedSharding:
    """Returns the sharding of this copy alone."""
    first = tuple(
      slice(0, 1) if name in self.axes else slice(None)
      for name in self.mesh.axis_names
    )
    mesh = Mesh(
      self.mesh.devices[first],
      self.mesh.axis_names,
      axis_types=self.mesh.axis_types,
    )
    return NamedSharding(mesh, spec)

  def processes(self) -> set[int]:
    """Returns the processes that hold this copy."""
    devices = self.alone(jax.sharding.PartitionSpec()).mesh.devices
    return {device.process_index for device in devices.flat}


def shares(
  leaves: Sequence[Any], *, least_bytes: int | None = None
) -> list[Share | None]:
  """Chooses one copy of every array; the same choice in every process.

  Args:
    leaves: arrays or ShapeDtypeStructs with shardings.
    least_bytes: each process that takes part gets about so many, or more; by
      default `LEAST_BYTES`.

  Returns:
    A Share for each array; None for one that has no second copy, or whose
    sharding does not tell.
  """
  kinds: dict[Any, _Kind | None] = {}
  sizes: list[tuple[int, int, _Kind]] = []
  for position, leaf in enumerate(leaves):
    kind = _kind(leaf, kinds)
    if kind is not None:
      sizes.append((-leaf.size * leaf.dtype.itemsize, position, kind))
  total = -sum(size for size, _, _ in sizes)
  most = max(1, total // (LEAST_BYTES if least_bytes is None else least_bytes))
  by_process: dict[int, float] = collections.defaultdict(float)
  by_device: dict[int, int] = collections.defaultdict(int)
  chosen: list[Share | None] = [None] * len(leaves)
  for negative, position, kind in sorted(sizes, key=lambda entry: entry[:2]):
    hosts = min(
      kind.hosts(most), key=lambda hosts: max(by_process[p] for p in hosts)
    )
    row = min(
      kind.rows[hosts], key=lambda row: by_device[kind.first_device(row)]
    )
    for process in hosts:
      by_process[process] -= negative / len(hosts)
    by_device[kind.first_device(row)] -= negative
    chosen[position] = kind.share(row)
  return chosen


class _Kind:
  """All arrays of one mesh that the same of its axes repeat.

  Attributes:
    rows: {processes that hold a copy: the numbers of their copies}.
  """

  def __init__(self, mesh: Mesh, axes: tuple[str, ...]):
    self._mesh, self._axes = mesh, axes
    self._positions = [mesh.axis_names.index(name) for name in axes]
    self._shape = [mesh.devices.shape[p] for p in self._positions]
    front = np.moveaxis(
      mesh.devices, self._positions, range(len(self._positions))
    )
    self._copies = front.reshape(math.prod(self._shape), -1)
    self.rows: dict[tuple[int, ...], list[int]] = {}
    for row, devices in enumerate(self._copies):
      hosts = tuple(sorted({device.process_index for device in devices}))
      self.rows.setdefault(hosts, []).append(row)
    self._shares: dict[int, Share] = {}

  def hosts(self, most: int) -> list[tuple[int, ...]]:
    """Returns at most so many groups of processes, far apart in the mesh."""
    groups = list(self.rows)
    count = min(most, len(groups))
    return [groups[i * len(groups) // count] for i in range(count)]

  def first_device(self, row: int) -> int:
    """Returns the number of the first device that holds a copy."""
    return self._copies[row][0].id

  def share(self, row: int) -> Share:
    """Returns the Share that takes a copy."""
    if row not in self._shares:
      offsets = np.unravel_index(row, self._shape)
      turned = np.roll(
        self._mesh.devices,
        [-int(offset) for offset in offsets],
        self._positions,
      )
      self._shares[row] = Share(
        Mesh(turned, self._mesh.axis_names, axis_types=self._mesh.axis_types),
        self._axes,
      )
    return self._shares[row]


def _kind(leaf: Any, kinds: dict[Any, _Kind | None]) -> _Kind | None:
  """Returns the kind of an array, None if there is no choice to make."""
  sharding = getattr(leaf, 'sharding', None)
  if not isinstance(sharding, NamedSharding) or not isinstance(
    sharding.mesh, Mesh
  ):
    return None
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
    return None  # a random key, of a few bytes
  used = set()
  for entry in sharding.spec:
    used |= set(entry) if isinstance(entry, tuple) else {entry}
  key = (sharding.mesh, frozenset(used))
  if key not in kinds:
    mesh = sharding.mesh
    sizes = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    axes = tuple(
      name for name in mesh.axis_names if name not in used and sizes[name] > 1
    )
    everywhere = len({d.process_index for d in mesh.devices.flat})
    whole = everywhere == jax.process_count()
    kinds[key] = _Kind(mesh, axes) if axes and whole else None
  return kinds[key]


def turned(state: Any) -> Any:
  """Returns a state whose arrays name the chosen copy as their first.

  No value is copied or moved: the arrays share the memory of the given ones.

  Args:
    state: tree of arrays.
  """
  leaves, structure = jax.tree.flatten(state)
  for position, share in enumerate(shares(leaves)):
    if share is not None:
      leaf = leaves[position]
      leaves[position] = jax.make_array_from_single_device_arrays(
        leaf.shape,
        share.sharding(leaf.sharding.spec),
        [shard.data for shard in leaf.addressable_shards],
      )
  return jax.tree.unflatten(structure, leaves)
