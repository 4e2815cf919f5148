"""Compares the copies of every array that several devices hold, bit by bit.

Devices that hold the same part of an array compute a hash of it, and the hashes
are compared on the devices, so that a number of a few bytes per array leaves
them. A difference means that a device or a link computed wrongly, or that two
hosts restored different files: nothing in the program makes the copies differ.

The hash of values b_i (their bits as integers) at the positions i of a part is

  sum_i mix(b_i) * (2 i + 1)  mod 2^32,  mix(b) = c ^ (c >> 16), c = b * M,

with an odd number M. Both mix and the product with an odd number are one to
one, so that a change of a single value always changes the hash.
"""

import collections
import socket
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.distributed import collectives, exit_codes

_MULTIPLIER = 0x9E3779B1  # a prime near 2^32 divided by the golden ratio
_MOST_NAMES = 3  # arrays in the message, which is one sentence


class ReplicasDiffer(Exception):
  """Devices that must hold the same values hold different ones."""

  # The checkpoints before are whole: another start continues from the newest.
  ending = exit_codes.REPLICAS_DIFFER


class ReplicaComparison:
  """The compiled comparison of one state, and the results that are pending."""

  def __init__(self, abstract: Any, mesh: Mesh):
    """Prepares to compare; nothing is compiled before the first comparison.

    Args:
      abstract: tree of ShapeDtypeStructs with NamedShardings on `mesh`.
      mesh: the device mesh.
    """
    self._mesh = mesh
    leaves = jax.tree_util.tree_leaves_with_path(abstract)
    # What has copies, by its place among the leaves.
    self._copied = {
      n: axes
      for n, (_, leaf) in enumerate(leaves)
      if (axes := _replicated_axes(leaf, mesh))
    }
    self._axes = list(self._copied.values())
    self._names = [
      jax.tree_util.keystr(leaves[n][0], simple=True, separator='/')
      for n in self._copied
    ]
    self._specs = tuple(leaves[n][1].sharding.spec for n in self._copied)
    self._compare = jax.jit(self._make())
    self._pending: list[tuple[int, jax.Array, jax.Array]] = []

  def start(self, state: Any, step: int) -> None:
    """Starts to compare a state, which may be donated afterwards.

    A collective of the devices: every process must call it at the same step.

    Args:
      state: tree of arrays, as `abstract` describes it.
      step: number of updates made, for the message.
    """
    if not self._names or any(step == each[0] for each in self._pending):
      return
    leaves = jax.tree.leaves(state)
    copied = [leaves[n] for n in self._copied]
    self._pending.append((step, *self._compare(copied)))

  def finish(self) -> None:
    """Waits for the comparisons that were started, and judges them.

    All processes see the same result.

    Raises:
      ReplicasDiffer: names the first step, the arrays and the hosts.
    """
    pending, self._pending = self._pending, []
    for step, differ, hashes in pending:
      found = np.asarray(differ.addressable_data(0))
      if found.any():
        text = self._describe(step, np.flatnonzero(found), hashes)
        raise ReplicasDiffer(text)

  def check(self, state: Any, step: int) -> None:
    """Compares a state now; see `start` and `finish`."""
    self.start(state, step)
    self.finish()

  def _make(self):
    """Returns [leaf] -> (bool [L]: differs, uint32 [devices, L]: hashes)."""
    groups = collections.defaultdict(list)
    for n, axes in enumerate(self._axes):
      groups[axes].append(n)

    def on_each_device(*leaves):
      hashes = jnp.stack([_hash(leaf) for leaf in leaves])
      differ = jnp.zeros(len(leaves), jnp.int32)
      # A signed number, because not every backend has the largest unsigned one.
      signed = jax.lax.bitcast_convert_type(hashes, jnp.int32)
      for axes, members in groups.items():
        mine = signed[np.array(members)]
        unequal = jax.lax.pmax(mine, axes) != jax.lax.pmin(mine, axes)
        differ = differ.at[np.array(members)].set(unequal.astype(jnp.int32))
      return jax.lax.pmax(differ, self._mesh.axis_names), hashes[None]

    on_devices = jax.shard_map(
      on_each_device,
      mesh=self._mesh,
      in_specs=self._specs,
      out_specs=(PartitionSpec(), PartitionSpec(self._mesh.axis_names)),
      check_vma=False,  # It takes copies for equal, which is the question.
    )
    return lambda leaves: on_devices(*map(_bits, leaves))

  def _describe(self, step, found, hashes):
    """Returns which arrays differ, and on which devices of which hosts.

    A collective.
    """
    hosts = collectives.gather_objects(socket.gethostname())
    sharding = NamedSharding(self._mesh, PartitionSpec())
    table = np.asarray(
      jax.jit(lambda x: x, out_shardings=sharding)(hashes).addressable_data(0)
    )
    table = table.reshape(*self._mesh.devices.shape, -1)
    named = []
    for leaf in found[:_MOST_NAMES]:
      wrong = _outvoted(table[..., leaf], self._axes[leaf], self._mesh)
      where = [
        f'device {d.id} of process {d.process_index} ({hosts[d.process_index]})'
        for d in wrong
      ]
      named.append(f'{self._names[leaf]} on {", ".join(where)}')
    more = len(found) - len(named)
    rest = f' and {more} more arrays' if more > 0 else ''
    return (
      f'After step {step}, devices that must hold equal values do not: '
      f'{"; ".join(named)}{rest}. A device, its memory or a link is faulty, or '
      'hosts have restored different files. Nothing was saved since: start the '
      'same command again, which goes on from what is whole, and take out this '
      'host if it is named again.'
    )


def check_restored(tree: Any, step: int) -> None:
  """Compares what several processes have restored, each by itself.

  A collective; in a run of one process it does nothing.

  Args:
    tree: tree of arrays; those that are on no mesh are not compared.
    step: step of the checkpoint, for the message.

  Raises:
    ReplicasDiffer: processes hold different values.
  """
  shared = [
    each for each in jax.tree.leaves(tree) if not each.is_fully_addressable
  ]
  if shared:
    ReplicaComparison(tree, shared[0].sharding.mesh).check(tree, step)


def _replicated_axes(leaf: Any, mesh: Mesh) -> tuple[str, ...]:
  """Returns the axes of the mesh over which copies of an array lie."""
  if not leaf.size:
    return ()
  used = set()
  for entry in leaf.sharding.spec:
    used |= set(entry) if isinstance(entry, tuple) else {entry}
  return tuple(
    a for a in mesh.axis_names if a not in used and mesh.shape[a] > 1
  )


def _bits(leaf: jax.Array) -> jax.Array:
  """Returns an array of which bits can be taken: the data of a random key."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.random.key_data(leaf)
  return leaf


def _hash(part: jax.Array) -> jax.Array:
  """Returns the hash of the module docstring. part: any shape -> uint32 []."""
  if part.dtype == jnp.bool_:
    part = part.astype(jnp.uint8)
  unsigned = jnp.dtype(f'uint{8 * min(part.dtype.itemsize, 4)}')
  bits = jax.lax.bitcast_convert_type(part, unsigned).astype(jnp.uint32)
  mixed = bits * jnp.uint32(_MULTIPLIER)
  mixed = mixed ^ (mixed >> jnp.uint32(16))
  weight, stride = jnp.uint32(1), 2
  for axis in reversed(range(bits.ndim)):
    place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    weight = weight + place * jnp.uint32(stride % 2**32)
    stride *= bits.shape[axis]
  return jnp.sum(mixed * weight, dtype=jnp.uint32)


def _outvoted(
  hashes: np.ndarray, axes: tuple[str, ...], mesh: Mesh
) -> list[jax.Device]:
  """Returns the devices whose copy is not that of the majority.

  Where two values have equally many devices, both are named.

  Args:
    hashes: hash of one array on every device, in the shape of the mesh.
    axes: axes over which copies lie.
    mesh: the device mesh.
  """
  last = [mesh.axis_names.index(axis) for axis in axes]
  first = [n for n in range(hashes.ndim) if n not in last]
  order = (*first, *last)
  copies = int(np.prod([mesh.shape[axis] for axis in axes]))
  rows = hashes.transpose(order).reshape(-1, copies)
  devices = mesh.devices.transpose(order).reshape(-1, copies)
  wrong = []
  for values, places in zip(rows, devices, strict=True):
    counts = collections.Counter(values.tolist()).most_common()
    if len(counts) == 1:
      continue
    tied = counts[0][1] == counts[1][1]
    wrong += [
      place
      for value, place in zip(values.tolist(), places, strict=True)
      if tied or value != counts[0][0]
    ]
  return wrong
