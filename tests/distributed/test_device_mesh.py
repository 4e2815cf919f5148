import jax
import numpy as np
import pytest
from support import tiny_run

from cdm.distributed import device_mesh


def test_one_axis_takes_the_devices_that_are_left():
  assert dict(device_mesh.make_mesh().shape) == dict(data=8, fsdp=1, tensor=1)
  mesh = device_mesh.make_mesh(data=2, fsdp=-1, tensor=2)
  assert dict(mesh.shape) == dict(data=2, fsdp=2, tensor=2)
  assert device_mesh.num_batch_shards(mesh) == 4


def test_a_single_device_is_a_mesh_of_one():
  mesh = device_mesh.make_mesh(devices=jax.devices()[:1])
  assert mesh.devices.size == 1


@pytest.mark.parametrize(
  ('axes', 'message'),
  [
    (dict(data=3), 'data=3, fsdp=1, tensor=1, but there are 8 devices'),
    (dict(data=-1, fsdp=3), 'must multiply'),
    (dict(data=-1, fsdp=-1), 'at most one is -1'),
    (dict(data=0), 'at least 1'),
  ],
)
def test_a_mesh_that_does_not_fit_is_refused(axes, message):
  with pytest.raises(ValueError, match=message):
    device_mesh.make_mesh(**axes)


def test_a_device_holds_its_share_of_the_batch_in_order():
  batch = tiny_run.batch_at(0)
  for mesh in (tiny_run.mesh(8), tiny_run.mesh(2, 4), tiny_run.mesh(1, 4, 2)):
    placed = device_mesh.shard_batch(batch, mesh)
    share = tiny_run.BATCH // device_mesh.num_batch_shards(mesh)
    np.testing.assert_array_equal(placed['image'], batch['image'])
    for shard in placed['image'].addressable_shards:
      assert shard.data.shape[0] == share
      np.testing.assert_array_equal(shard.data, batch['image'][shard.index])


@pytest.mark.parametrize(
  ('size', 'accumulation', 'message'),
  [
    (30, 1, 'Global batch 30 does not divide over 8 devices; .*24 or 32'),
    (4, 1, 'multiple of 8, e.g. 8'),
    (24, 2, '8 devices times 2 accumulated microbatches; .*16 or 32'),
    (0, 1, 'Global batch 0'),
  ],
)
def test_a_batch_that_does_not_divide_names_the_nearest(
  size, accumulation, message
):
  with pytest.raises(ValueError, match=message):
    device_mesh.check_batch(size, tiny_run.mesh(8), accumulation=accumulation)


def test_a_host_batch_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match='e.g. 8 or 16'):
    device_mesh.shard_batch(tiny_run.batch_at(0, size=12), tiny_run.mesh(8))
