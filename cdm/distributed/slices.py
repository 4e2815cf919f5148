"""Groups devices by the fast network that joins them, into slices.

A slice is a set of devices with fast links between all of them: a slice of TPUs
or, in JAX's words too, the GPUs of one host (or of one NVLink domain). Slices
exchange data over the data center network, which is slower by one or two orders
of magnitude, so a mesh must keep what moves most bytes inside a slice.
"""

import collections
from collections.abc import Sequence
from typing import Any

Devices = list[Any]


def by_slice(
  devices: Sequence[Any], *, inner: int = 1, num_slices: int = 1
) -> list[Devices]:
  """Groups devices by the slice that their backend reports.

  TPUs that report no slice are one slice. CPU devices report none either; each
  process is then a slice if `inner` fits into it. Otherwise all devices are
  one, because nothing says that the network between processes is slow.

  Args:
    devices: `jax.Device`s, or objects with the same attributes.
    inner: number of devices that must lie inside a slice.
    num_slices: number of slices that devices which report none stand for, in
      their order.

  Returns:
    The slices in ascending order, each a list of devices in the given order.

  Raises:
    ValueError: the slices have different numbers of devices.
  """
  devices = list(devices)
  if all(getattr(d, 'slice_index', None) is not None for d in devices):
    slices = _grouped(devices, 'slice_index')
  elif num_slices > 1:
    size = -(-len(devices) // num_slices)
    slices = [devices[i : i + size] for i in range(0, len(devices), size)]
  elif devices[0].platform == 'tpu':
    slices = [devices]
  else:
    slices = _grouped(devices, 'process_index')
    sizes = {len(each) for each in slices}
    if len(sizes) > 1 or len(slices[0]) % inner:
      slices = [devices]
  sizes = [len(each) for each in slices]
  if len(set(sizes)) > 1:
    raise ValueError(
      f'The {len(slices)} slices (or GPU hosts) of this run have '
      f'{", ".join(map(str, sizes))} devices; a mesh needs the same number in '
      'each, so show every process as many devices (CUDA_VISIBLE_DEVICES) or '
      'leave out the smaller ones.'
    )
  return slices


def devices_per_host(slices: Sequence[Devices]) -> int | None:
  """Returns the number of devices of one host, None if there is one host only.

  A slice of TPUs has several hosts, one to each process. A slice of other
  devices is one host, with one process or with one process to each device.
  """
  first = slices[0]
  if first[0].platform == 'tpu':
    hosts = _grouped(first, 'process_index')
    if len(hosts) == len(slices) == 1:
      return None
    return min(len(host) for host in hosts)
  return None if len(slices) == 1 else len(first)


def _grouped(devices: Sequence[Any], attribute: str) -> list[Devices]:
  groups = collections.defaultdict(list)
  for device in devices:
    groups[getattr(device, attribute)].append(device)
  return [groups[key] for key in sorted(groups)]
