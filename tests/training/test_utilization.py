"""What a run makes of its hardware, against numbers put there by hand."""

import types

import jax
import pytest

from cdm.distributed import device_specs
from cdm.training import utilization


class Device:
  process_index = 0

  def __init__(self, kind, stats):
    self.device_kind, self._stats = kind, stats

  def memory_stats(self):
    return self._stats


def mesh(*local):
  flat = types.SimpleNamespace(flat=list(local))
  return types.SimpleNamespace(devices=flat, size=len(local))


def built(flops):
  return types.SimpleNamespace(trace=lambda: ({}, flops), training_passes=3)


def test_mfu_is_three_forward_passes_over_the_peak_of_all_devices():
  """1 GFLOP forward, 460 images a second on two v4 chips of 275 TFLOP/s."""
  pair = mesh(Device('TPU v4', None), Device('TPU v4', None))
  read = utilization.make_utilization(built(1e9), pair)
  found = read({'images_per_second': 460.0})
  assert found['mfu'] == pytest.approx(3e9 * 460 / (2 * 275e12))
  assert 'device_memory_bytes' not in found
  assert 'mfu' not in read({})  # the interval held no step


def test_a_core_of_two_has_half_a_chip():
  assert device_specs.peak_flops('TPU v3') == 123e12 / 2
  assert device_specs.peak_flops('TPU v5 lite') == 197e12
  assert device_specs.peak_flops('NVIDIA H100 80GB HBM3') == 989.4e12
  assert device_specs.peak_flops('cpu') is None


def test_the_fullest_device_is_told():
  local = [
    Device('x', {'peak_bytes_in_use': 3, 'bytes_limit': 12}),
    Device('x', {'peak_bytes_in_use': 9, 'bytes_limit': 12}),
  ]
  assert utilization.memory(local) == {
    'device_memory_bytes': 9,
    'device_memory_fraction': 0.75,
  }
  assert utilization.memory([Device('x', {'peak_bytes_in_use': 3})]) == {
    'device_memory_bytes': 3
  }


def test_a_cpu_has_no_peak_but_a_memory():
  read = utilization.make_utilization(built(1), mesh(*jax.devices()[:1]))
  found = read({'images_per_second': 1.0})
  assert set(found) == {'host_memory_bytes'}
  assert 2**20 < found['host_memory_bytes'] < 2**40
