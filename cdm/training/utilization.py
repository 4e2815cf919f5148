"""What a run makes of its hardware: MFU, memory of host and devices.

  MFU = 3 forward FLOPs per image * images per second / peak FLOPs of the mesh

Forward and backward pass of the network are three forward passes; what is
recomputed to save memory does not count, [PaLM] app. B.
"""

import os
import pathlib

import jax
import numpy as np

from cdm.distributed import device_specs
from cdm.models import flops as describe
from cdm.reporting import session_log

_STATM = pathlib.Path('/proc/self/statm')


def make_utilization(built, image_size, mesh):
  """-> gauges(rates) -> {name: number}, what a log line tells besides.

  Args:
    built: build.Stage.
    image_size: H = W of its images.
    mesh: the mesh it is trained on.

  Returns:
    Function from the scalars of `step_timer.Timer.rates` to those of this
    module: `mfu` where the peak of the devices is known,
    `host_memory_bytes`, and on accelerators `device_memory_bytes` (the most
    in use on one device so far) and `device_memory_fraction` of what it has.
  """
  local = [
    d for d in mesh.devices.flat if d.process_index == jax.process_index()
  ]
  peak = mesh.size * (device_specs.peak_flops(local[0].device_kind) or 0)
  flops = []  # counted when a line is first written: a trace takes a second

  def mfu(images_per_second):
    if not flops:
      _, forward = describe.trace(
        built.net, image_size, built.lowres is not None
      )
      flops.append(3 * forward)
    return flops[0] * images_per_second / peak

  def gauges(rates):
    found = {'host_memory_bytes': host_memory()}
    if peak and 'images_per_second' in rates:
      found['mfu'] = mfu(rates['images_per_second'])
    return found | memory(local)

  return gauges


def memory(local):
  """-> scalars of the fullest of some devices; {} where none tells.

  Args:
    local: jax.Devices of this process.
  """
  stats = [device.memory_stats() or {} for device in local]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  if not peaks:
    return {}
  fullest = int(np.argmax(peaks))
  found = {'device_memory_bytes': peaks[fullest]}
  limit = stats[fullest].get('bytes_limit')
  if limit:
    found['device_memory_fraction'] = peaks[fullest] / limit
  return found


def host_memory():
  """-> bytes that this process holds now; where none tells, at most so far."""
  if not _STATM.exists():
    return session_log.peak_host_bytes()
  resident = int(_STATM.read_text().split()[1])
  return resident * os.sysconf('SC_PAGE_SIZE')
