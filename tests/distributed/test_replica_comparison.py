"""Copies of an array are compared bit by bit; one wrong device is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cdm.distributed import device_mesh, exit_codes, replica_comparison

SPECS = {
  'whole': PartitionSpec(),
  'split': PartitionSpec(None, 'fsdp'),
  'bits16': PartitionSpec('tensor'),
  'count': PartitionSpec(),
  'key': PartitionSpec(),
}


@pytest.fixture(scope='module')
def mesh():
  return device_mesh.make_mesh(data=2, fsdp=2, tensor=2)


def values():
  rng = np.random.default_rng(0)
  return {
    'whole': rng.normal(size=(5, 3)).astype(np.float32),
    'split': rng.normal(size=(3, 4)).astype(np.float32),
    'bits16': jnp.asarray(rng.normal(size=(4,)), jnp.bfloat16),
    'count': np.int32(7),
    'key': jax.random.key(3),
  }


def placed(mesh):
  return {
    name: jax.device_put(value, NamedSharding(mesh, SPECS[name]))
    for name, value in values().items()
  }


@pytest.fixture(scope='module')
def comparison(mesh):
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    placed(mesh),
  )
  return replica_comparison.ReplicaComparison(abstract, mesh)


def corrupted(array, wrong, change):
  """Returns the array with one device's copy changed."""
  parts = []
  for shard in array.addressable_shards:
    part = np.array(shard.data)
    if shard.device.id in wrong:
      part = change(part)
    parts.append(jax.device_put(part, shard.device))
  return jax.make_array_from_single_device_arrays(
    array.shape, array.sharding, parts
  )


def flip_lowest_bit(part):
  kind = np.dtype(f'uint{8 * part.dtype.itemsize}')
  bits = np.ascontiguousarray(part).view(kind).copy()
  bits.reshape(-1)[-1] ^= 1
  return bits.view(part.dtype).reshape(part.shape)


def swap_two(part):
  flat = part.reshape(-1).copy()
  flat[[0, 1]] = flat[[1, 0]]
  return flat.reshape(part.shape)


def flip_two_signs(part):
  flat = part.reshape(-1).copy()
  flat[:2] *= -1
  return flat.reshape(part.shape)


def test_equal_copies_pass_whatever_their_layout_and_type(mesh, comparison):
  comparison.check(placed(mesh), 1)


@pytest.mark.parametrize('name', ['whole', 'split', 'bits16', 'count'])
def test_one_bit_of_one_copy_is_found_and_its_array_named(
  mesh, comparison, name
):
  state = placed(mesh)
  state[name] = corrupted(state[name], {0}, flip_lowest_bit)
  with pytest.raises(
    replica_comparison.ReplicasDiffer, match=f'After step 4.*: {name} on dev'
  ) as caught:
    comparison.check(state, 4)
  assert exit_codes.classify(caught.value) is exit_codes.REPLICAS_DIFFER
  comparison.check(placed(mesh), 5)  # What was found is not found again.


@pytest.mark.parametrize('change', [swap_two, flip_two_signs])
def test_changes_that_a_plain_sum_would_miss_are_found(
  mesh, comparison, change
):
  state = placed(mesh)
  state['whole'] = corrupted(state['whole'], {2}, change)
  with pytest.raises(replica_comparison.ReplicasDiffer, match='whole'):
    comparison.check(state, 1)


def test_the_majority_decides_which_device_is_named(mesh, comparison):
  state = placed(mesh)
  state['whole'] = corrupted(state['whole'], {5}, flip_lowest_bit)
  with pytest.raises(replica_comparison.ReplicasDiffer) as caught:
    comparison.check(state, 1)
  assert 'whole on device 5 of process 0 (' in str(caught.value)
  assert str(caught.value).count('device 5') == 1
  assert 'device 4 ' not in str(caught.value)


def test_parts_of_a_split_array_may_differ_but_not_their_copies(
  mesh, comparison
):
  """A part of `split` lies on four of the eight devices."""
  state = placed(mesh)
  first = state['split'].addressable_shards[0]
  same = {
    shard.device.id
    for shard in state['split'].addressable_shards
    if shard.index == first.index
  }
  assert len(same) == 4
  state['split'] = corrupted(state['split'], same, flip_lowest_bit)
  comparison.check(state, 1)


def test_a_comparison_is_judged_after_its_state_is_gone(mesh, comparison):
  state = placed(mesh)
  state['whole'] = corrupted(state['whole'], {5}, flip_lowest_bit)
  comparison.start(state, 8)
  for leaf in jax.tree.leaves(state):
    leaf.delete()
  with pytest.raises(replica_comparison.ReplicasDiffer, match='After step 8'):
    comparison.finish()


def test_one_device_has_nothing_to_compare():
  one = device_mesh.make_mesh(data=1, devices=jax.devices()[:1])
  state = {'a': jax.device_put(np.zeros(3), NamedSharding(one, SPECS['whole']))}
  comparison = replica_comparison.ReplicaComparison(state, one)
  comparison.check(state, 1)
