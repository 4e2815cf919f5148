"""Describes the devices of slices that need not exist, to compile for them."""

from collections.abc import Sequence
from typing import Any

import jax

from cdm.distributed import device_specs


def of(piece: device_specs.Slice) -> Sequence[Any]:
  """Returns the JAX devices of one or several slices, to compile for them.

  The devices of a TPU slice are only described: no backend but the CPU's is
  started. GPUs have no compiler that works without one, so simulated CPU
  devices stand for them.

  Raises:
    ValueError: there is no such slice, or no compiler for it.
  """
  if not piece.is_tpu:
    cpus = jax.devices('cpu')
    if len(cpus) < piece.devices:
      raise ValueError(
        f'--topology={piece.topology}: this process has {len(cpus)} CPU '
        'devices, and their number is fixed when JAX starts.'
      )
    return cpus[: piece.devices]
  from jax.experimental import topologies

  assert piece.chip is not None, 'a slice of TPUs has a chip'
  options = dict(piece.chip.options)
  if piece.num_slices > 1:
    options['num_slices'] = piece.num_slices
  # By default libtpu assumes hosts of 2 x 2 chips.
  if piece.chips < 4 * piece.num_slices:
    bounds = (*piece.shape, 1, 1)[:3]
    options['chips_per_host_bounds'] = bounds
  try:
    topology = topologies.get_topology_desc(
      platform='tpu', topology_name=piece.name_of_one, **options
    )
  except Exception as error:  # noqa: BLE001 (libtpu raises its own types)
    reason = str(error).splitlines()[0].rstrip('.')
    raise ValueError(
      f'--topology={piece.topology}: the TPU compiler knows no such slice '
      f'({reason}). Axes are multiples of 2, and the documentation of '
      f'{piece.kind} lists its slices; for example {device_specs.EXAMPLES}.'
    ) from error
  return topology.devices
