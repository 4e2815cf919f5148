"""What one copy holds, all copies hold, bit for bit."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support import tiny_run

from cdm.checkpointing import replica_broadcast, replica_shares


def values():
  """Arrays of several types and sizes; floats of all kinds of bits."""
  rng = np.random.default_rng(0)
  bits = rng.integers(0, 2**32, (16, 40), dtype=np.uint32)
  floats = bits.view(np.float32)
  floats[0, :4] = [-0.0, 0.0, np.nan, -np.inf]
  return {
    'floats': (floats, PartitionSpec()),
    'split': (floats[::-1].copy(), PartitionSpec(None, 'fsdp')),
    'half': (bits[0].astype(np.uint16).view(jnp.bfloat16), PartitionSpec()),
    'step': (np.int32(7), PartitionSpec()),
    'odd': (np.arange(5, dtype=np.uint8), PartitionSpec()),
    'flags': (np.array([True, False, True]), PartitionSpec()),
  }


@pytest.mark.parametrize('piece_bytes', [1 << 10, 1 << 20])
@pytest.mark.parametrize('shape', [(4, 2, 1), (2, 2, 2), (8, 1, 1)])
def test_every_device_gets_the_bits_that_one_copy_had(shape, piece_bytes):
  mesh = tiny_run.mesh(*shape)
  given = values()
  targets = [
    jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=NamedSharding(mesh, spec))
    for v, spec in given.values()
  ]
  chosen = replica_shares.shares(targets, least_bytes=1)
  sent = []
  for target, share, (value, spec) in zip(
    targets, chosen, given.values(), strict=True
  ):
    read = jax.device_put(value, share.alone(spec))
    assert len(read.sharding.device_set) < len(mesh.devices.flat)
    sent.append(replica_broadcast.Sent(target, share.axes, read))
  received = replica_broadcast.broadcast(sent, piece_bytes=piece_bytes)
  for name, target, array in zip(given, targets, received, strict=True):
    assert array.sharding == target.sharding and array.dtype == target.dtype
    value = given[name][0]
    for shard in array.addressable_shards:
      expected = np.asarray(value[shard.index])
      assert np.asarray(shard.data).tobytes() == expected.tobytes(), name


def test_one_program_sends_any_number_of_arrays(caplog):
  mesh = tiny_run.mesh(8)
  at = NamedSharding(mesh, PartitionSpec())
  sent = [
    replica_broadcast.Sent(
      jax.ShapeDtypeStruct((n + 1, 3), np.float32, sharding=at), ('data',), None
    )
    for n in range(50)
  ]
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    arrays = replica_broadcast.broadcast(sent)
  assert caplog.text.count('Finished XLA compilation') == 1
  assert [array.shape for array in arrays] == [(n + 1, 3) for n in range(50)]
  assert not np.any(arrays[-1])
