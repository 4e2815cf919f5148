"""Estimates the time and cost of a compiled program with a roofline model.

  step time = max(FLOPs / peak, bytes moved / HBM bandwidth,
                  bytes sent / bandwidth of the links)

The model assumes that each of the three runs at the peak of the device and that
the longest hides the other two. Nothing is run. A real step takes longer than
its arithmetic at peak, often twice as long. Some of the bytes moved never leave
the chip, so that the second term may be too large.
"""

from collections.abc import Mapping
from typing import Any

from cdm.distributed import device_specs

HOUR, DAY = 3600.0, 86400.0
SAMPLES = 50_000  # FID is measured on this many images.
NOTE = 'a roofline estimate from device peaks; nothing was run'


def row(
  facts: Mapping[str, Any], prices: Mapping[str | None, float]
) -> dict[str, Any]:
  """Returns the facts about a program with an estimate of time and cost.

  Args:
    facts: what `compilation.measure` returned.
    prices: what `device_specs.parse_prices` returned.

  Returns:
    The facts and the key 'estimate'. It is None where there is no basis for an
    estimate: on a CPU, or for a program that does not fit.
  """
  piece = device_specs.parse(facts['topology'])
  known = piece.chip and facts['compiled_flops_per_step'] is not None
  return {
    **facts,
    'estimate': estimate(facts, piece, prices) if known else None,
  }


def estimate(
  facts: Mapping[str, Any],
  piece: device_specs.Slice,
  prices: Mapping[str | None, float],
) -> dict[str, Any]:
  """Estimates the time and cost of a training run or of drawing samples.

  Args:
    facts: what `compilation.measure` returned for a program that fits.
    piece: the TPU slice.
    prices: what `device_specs.parse_prices` returned.

  Returns:
    JSON-able dict of the seconds per step, the images per second, and the days,
    chip-hours and dollars of the whole training run, or of `SAMPLES` images.
    The dollars are None where no price is known.
  """
  times = roofline(facts, piece)
  seconds = max(times.values())
  step = facts['step'] == 'train'
  images = facts['batch_size']
  runs = facts['num_steps'] if step else SAMPLES / images
  chip_hours = runs * seconds / HOUR * piece.chips
  price, source = device_specs.price_of(piece, prices)
  return {
    'note': NOTE,
    **{f'{name}_seconds': value for name, value in times.items()},
    'step_seconds': seconds,
    'bound_by': max(times, key=lambda name: times[name]),
    'images_per_second': images / seconds,
    'of': f'{runs:,} steps' if step else f'{SAMPLES:,} images',
    'days': runs * seconds / DAY,
    'chip_hours': chip_hours,
    'price_per_chip_hour': price,
    'price_source': source,
    'dollars': None if price is None else price * chip_hours,
  }


def roofline(
  facts: Mapping[str, Any], piece: device_specs.Slice
) -> dict[str, float]:
  """Returns the seconds that each of the three terms takes at its peak.

  The keys are 'compute', 'memory' and 'interconnect'.
  """
  chip = piece.chip
  assert chip is not None, 'only the kind cpu has no chip, and no roofline'
  flops = facts['compiled_flops_per_step'] / piece.devices
  sent = sum(row['wire_bytes'] for row in facts['collectives'].values())
  return {
    'compute': flops * chip.cores / chip.flops,
    'memory': facts['bytes_moved_per_device'] * chip.cores / chip.hbm_bandwidth,
    'interconnect': sent * chip.cores / chip.link_bandwidth,
  }
