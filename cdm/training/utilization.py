"""Measures how well a run uses its hardware: MFU, memory of host and devices.

  MFU = 3 forward FLOPs per image * images per second / peak FLOP/s of the mesh

MFU is the model FLOPs utilization. The forward and the backward pass of the
network together count as three forward passes, and a teacher's count as they
are; activations that are recomputed to save memory do not count, [PaLM] app. B.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from cdm.config.built_stage import Stage
from cdm.distributed import device_specs
from cdm.reporting import session_log

_STATM = pathlib.Path('/proc/self/statm')


def make_utilization(
  built: Stage, mesh: jax.sharding.Mesh
) -> Callable[[Mapping[str, float]], dict[str, float]]:
  """Builds the function that adds hardware utilization to a log line.

  Args:
    built: the stage that is trained.
    mesh: the device mesh that it is trained on.

  Returns:
    Function from the scalars of `step_timer.Timer.rates` to the scalars of this
    module: `mfu` if the peak FLOP/s of the devices is known,
    `host_memory_bytes`, and on accelerators `device_memory_bytes` (the most
    in use on one device so far) and `device_memory_fraction`, its share of
    that device's memory.
  """
  local = [
    d for d in mesh.devices.flat if d.process_index == jax.process_index()
  ]
  peak = mesh.size * (device_specs.peak_flops(local[0].device_kind) or 0)
  # The FLOPs are counted when the first line is written, because tracing the
  # network takes a second.
  flops = []

  def mfu(images_per_second):
    if not flops:
      flops.append(built.training_passes * built.trace()[1])
    return flops[0] * images_per_second / peak

  def gauges(rates):
    scalars = {'host_memory_bytes': host_memory()}
    if peak and 'images_per_second' in rates:
      scalars['mfu'] = mfu(rates['images_per_second'])
    return scalars | memory(local)

  return gauges


def memory(local: Sequence[jax.Device]) -> dict[str, float]:
  """Returns the memory scalars of the device that uses the most memory.

  Args:
    local: devices of this process.

  Returns:
    `device_memory_bytes`, and `device_memory_fraction` if the size of the
    memory is known; {} if no device reports its memory, as CPUs do not.
  """
  stats = [device.memory_stats() or {} for device in local]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  if not peaks:
    return {}
  fullest = int(np.argmax(peaks))
  scalars = {'device_memory_bytes': peaks[fullest]}
  limit = stats[fullest].get('bytes_limit')
  if limit:
    scalars['device_memory_fraction'] = peaks[fullest] / limit
  return scalars


def host_memory() -> int:
  """Returns the bytes that this process holds in memory.

  Without /proc this is the most it has held so far, not what it holds now.
  """
  if not _STATM.exists():
    return session_log.peak_host_bytes()
  resident = int(_STATM.read_text(encoding='utf-8').split()[1])
  return resident * os.sysconf('SC_PAGE_SIZE')
