"""Which host writes, or reads, which array of a state."""

import collections
import dataclasses
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from support import tiny_run

from cdm.checkpointing import replica_shares


@dataclasses.dataclass(frozen=True)
class Device:
  """A device of a host that is not there."""

  id: int
  process_index: int
  platform: str = 'stand-in'
  device_kind: str = 'stand-in'


@dataclasses.dataclass
class Leaf:
  """What is asked of an array."""

  shape: tuple
  sharding: object
  dtype: np.dtype = np.dtype(np.float32)

  @property
  def size(self):
    return int(np.prod(self.shape))


def mesh(monkeypatch, *, hosts, per_host, fsdp):
  devices = np.array(
    [Device(n, n // per_host) for n in range(hosts * per_host)]
  )
  monkeypatch.setattr(jax, 'process_count', lambda: hosts)
  return Mesh(devices.reshape(-1, fsdp, 1), ('data', 'fsdp', 'tensor'))


def state(mesh, count=300):
  """Arrays of very different sizes, every third split over `fsdp`."""
  rng = np.random.default_rng(0)
  sides = 16 * rng.integers(1, 64, size=count)
  return [
    Leaf(
      (3, 3, int(side), 256),
      NamedSharding(
        mesh, PartitionSpec(*((None,) * 3 + ('fsdp',)) * (n % 3 == 0))
      ),
    )
    for n, side in enumerate(sides)
  ]


def loads(leaves, chosen):
  """-> {process: bytes} of what each one writes."""
  found = collections.Counter()
  for leaf, share in zip(leaves, chosen, strict=True):
    alone = share.alone(leaf.sharding.spec)
    seen = set()
    for device, index in alone.devices_indices_map(leaf.shape).items():
      if str(index) not in seen:  # the first copy alone is written
        seen.add(str(index))
        part = np.prod(alone.shard_shape(leaf.shape))
        found[device.process_index] += 4 * int(part)
  return found


@pytest.mark.parametrize(
  ('hosts', 'per_host', 'fsdp'),
  [(4, 2, 1), (4, 2, 2), (64, 8, 1), (64, 8, 8), (8, 2, 4)],
)
def test_all_hosts_have_about_as_many_bytes(monkeypatch, hosts, per_host, fsdp):
  leaves = state(mesh(monkeypatch, hosts=hosts, per_host=per_host, fsdp=fsdp))
  found = loads(leaves, replica_shares.shares(leaves, least_bytes=1))
  mean = sum(leaf.size * 4 for leaf in leaves) / hosts
  largest = max(leaf.size * 4 for leaf in leaves)
  assert sum(found.values()) == sum(leaf.size * 4 for leaf in leaves)
  assert max(found.values()) <= mean + largest
  if fsdp <= per_host:
    assert len(found) == hosts


def test_a_host_gets_enough_to_do_or_nothing(monkeypatch):
  """Then few files are opened, which does not grow with the hosts."""
  leaves = state(mesh(monkeypatch, hosts=64, per_host=8, fsdp=8))
  total = sum(leaf.size * 4 for leaf in leaves)
  found = loads(leaves, replica_shares.shares(leaves, least_bytes=total // 5))
  assert len(found) == 5
  assert max(found.values()) < 1.5 * total / 5
  # They are far apart, as the switches of a network are.
  assert sorted(found) == [0, 12, 25, 38, 51]
  few = loads(leaves[:3], replica_shares.shares(leaves[:3]))
  assert list(few) == [0]


def test_an_array_without_a_second_copy_is_no_choice(monkeypatch):
  place = mesh(monkeypatch, hosts=2, per_host=2, fsdp=4)
  whole = NamedSharding(place, PartitionSpec('fsdp'))
  key = jax.eval_shape(lambda: jax.random.key(0))
  one = jax.ShapeDtypeStruct((2,), np.float32)
  found = replica_shares.shares([Leaf((4,), whole), one, key])
  assert found == [None, None, None]


def test_the_choice_of_thousands_of_arrays_on_thousands_of_devices_is_quick(
  monkeypatch,
):
  leaves = state(mesh(monkeypatch, hosts=256, per_host=8, fsdp=8), 3000)
  began = time.process_time()
  replica_shares.shares(leaves)
  assert time.process_time() - began < 10


def test_a_turned_state_holds_the_same_arrays_in_the_same_memory():
  given = tiny_run.init_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=tiny_run.mesh(4, 2),
    rules=tiny_run.RULES,
  )
  turned = replica_shares.turned(given)
  tiny_run.assert_same(turned, given)
  firsts = set()
  for mine, other in zip(
    jax.tree.leaves(turned.params), jax.tree.leaves(given.params), strict=True
  ):
    for a, b in zip(
      sorted(mine.addressable_shards, key=lambda s: s.device.id),
      sorted(other.addressable_shards, key=lambda s: s.device.id),
      strict=True,
    ):
      assert a.data.unsafe_buffer_pointer() == b.data.unsafe_buffer_pointer()
      assert a.index == b.index
      firsts |= {a.device} if a.replica_id == 0 else set()
  assert len(firsts) > 2  # not all on the first device
