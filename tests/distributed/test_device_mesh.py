import dataclasses

import jax
import numpy as np
import pytest
from jax.experimental import mesh_utils
from support import tiny_run

from cdm.distributed import device_mesh


@dataclasses.dataclass(frozen=True)
class Device:
  """A stand-in for a described device, with what a mesh reads of it."""

  id: int
  process_index: int
  slice_index: int
  coords: tuple[int, int, int] = (0, 0, 0)
  core_on_chip: int = 0
  platform: str = 'tpu'
  device_kind: str = 'TPU v5 lite'


def tpus(count, *, side=4):
  """-> the devices of `count` slices v5e:4x4, of four hosts each."""
  size = side * side
  return [
    Device(
      id=100_000 * which + n,
      process_index=(which * size + n) // 4,
      slice_index=which,
      coords=(n % side, n // side, 0),
    )
    for which in range(count)
    for n in range(size)
  ]


def gpus(count, each=8):
  return [
    Device(n, n // each, n // each, platform='gpu', device_kind='H100')
    for n in range(count * each)
  ]


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


@pytest.mark.parametrize(
  ('devices', 'inside', 'count'),
  [
    (tpus(2), (4, 4, 1), 2),
    (tpus(2), (2, 4, 2), 2),
    (tpus(1), (4, 4, 1), 1),
    (gpus(4), (1, 8, 1), 4),
    (gpus(4), (2, 2, 2), 4),
  ],
)
def test_slices_follow_each_other_along_data_as_in_jax_hybrid_meshes(
  devices, inside, count
):
  data, fsdp, tensor = inside
  mesh = device_mesh.make_mesh(fsdp=fsdp, tensor=tensor, devices=devices)
  assert dict(mesh.shape) == dict(data=count * data, fsdp=fsdp, tensor=tensor)
  expected = mesh_utils.create_hybrid_device_mesh(
    inside, (count, 1, 1), devices=devices, allow_split_physical_axes=True
  )
  np.testing.assert_array_equal(mesh.devices, expected)
  for row in mesh.devices:  # fsdp and tensor stay inside a slice
    assert len({device.slice_index for device in row.flat}) == 1


@pytest.mark.parametrize(
  ('axes', 'message'),
  [
    (
      dict(fsdp=16),
      'fsdp . tensor = 16 does not fit into the 4 slices',
    ),
    (dict(fsdp=4, tensor=4), 'product divides 8'),
    (dict(data=1, fsdp=32), 'only the slow network joins'),
  ],
)
def test_axes_that_do_not_fit_into_a_slice_are_refused(axes, message):
  with pytest.raises(ValueError, match=message):
    device_mesh.make_mesh(**axes, devices=gpus(4))


def test_simulated_devices_stand_for_those_of_slices():
  mesh = device_mesh.make_mesh(fsdp=2, num_slices=2)
  ids = np.vectorize(lambda device: device.id)(mesh.devices)[..., 0]
  assert ids.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
  with pytest.raises(ValueError, match='fsdp . tensor = 8'):
    device_mesh.make_mesh(fsdp=8, num_slices=2)


@pytest.mark.parametrize(
  ('devices', 'axes', 'fsdp'),
  [
    (gpus(4), {}, 8),
    (gpus(4), dict(tensor=2), 4),
    (gpus(4, 6), {}, 2),  # 6 divides hardly any number of channels
    (gpus(1), {}, 1),
    (tpus(2), {}, 4),
    (tpus(1), {}, 4),
    (tpus(1, side=2), {}, 1),
    (gpus(4), dict(data=16), 2),  # what a given `data` leaves
    (gpus(4), dict(data=8, tensor=-1), 1),
  ],
)
def test_a_chosen_fsdp_is_the_devices_of_a_host_where_there_are_several(
  devices, axes, fsdp
):
  mesh = device_mesh.make_mesh(**axes, fsdp=device_mesh.CHOSEN, devices=devices)
  assert mesh.shape['fsdp'] == fsdp
  assert mesh.devices.size == len(devices)


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


def test_a_function_knows_its_mesh_and_platform_while_it_is_traced():
  mesh, seen = tiny_run.mesh(2, 4), []

  def function(x):
    seen.append(jax.sharding.get_abstract_mesh())
    return x + 1

  wrapped = device_mesh.in_mesh(function, mesh)
  assert jax.jit(wrapped)(1) == 2 and wrapped.__name__ == 'function'
  assert seen[0].shape == mesh.shape
  assert seen[0].abstract_device.platform == 'cpu'
  assert jax.sharding.get_abstract_mesh().empty
  assert device_mesh.in_mesh(function, None) is function
