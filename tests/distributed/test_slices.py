import dataclasses

import pytest

from cdm.distributed import slices


@dataclasses.dataclass(frozen=True)
class Device:
  """A stand-in with what JAX's meshes read of a device."""

  id: int
  process_index: int
  platform: str = 'gpu'
  device_kind: str = 'H100'
  slice_index: int | None = None


def hosts(count, each, *, processes=1, **facts):
  """-> GPUs of `count` hosts, each a slice, as JAX reports them."""
  return [
    Device(
      id=n,
      process_index=n // (each // processes),
      slice_index=n // each,
      **facts,
    )
    for n in range(count * each)
  ]


@pytest.mark.parametrize('processes', [1, 8], ids=['host', 'gpu'])
def test_a_gpu_host_is_a_slice_whatever_its_processes(processes):
  found = slices.by_slice(hosts(4, 8, processes=processes)[::-1])
  assert [{d.slice_index for d in each} for each in found] == [
    {n} for n in range(4)
  ]
  assert slices.devices_per_host(found) == 8


def test_one_gpu_host_is_one_host():
  assert slices.devices_per_host(slices.by_slice(hosts(1, 8))) is None


def test_a_slice_of_tpus_has_a_host_to_each_process():
  # A slice that is alone reports no index.
  tpus = [Device(n, n // 4, 'tpu', 'TPU v6 lite') for n in range(16)]
  found = slices.by_slice(tpus)
  assert found == [tpus] and slices.devices_per_host(found) == 4
  assert slices.devices_per_host([tpus[:4]]) is None
  assert slices.devices_per_host([tpus[:4], tpus[4:8]]) == 4


def test_a_process_without_slices_is_one_if_the_axes_fit_into_it():
  cpus = [Device(n, n // 2, 'cpu', 'cpu') for n in range(4)]
  assert len(slices.by_slice(cpus, inner=2)) == 2
  assert slices.by_slice(cpus, inner=4) == [cpus]


def test_slices_of_unequal_size_are_refused_with_their_sizes():
  with pytest.raises(ValueError, match='3 slices .* have 8, 8, 7 devices'):
    slices.by_slice(hosts(3, 8)[:-1])


def test_stand_ins_are_cut_into_equal_slices_in_order():
  cpus = [Device(n, 0, 'cpu', 'cpu') for n in range(6)]
  assert slices.by_slice(cpus, num_slices=2) == [cpus[:3], cpus[3:]]
  with pytest.raises(ValueError, match='have 2, 2, 2, 1 devices'):
    slices.by_slice([*cpus, cpus[0]], num_slices=4)
