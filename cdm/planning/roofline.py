"""From what a compiler found to time and money. ESTIMATES, nothing was run.

  step time = max(FLOPs / peak, bytes moved / HBM bandwidth,
                  bytes sent / bandwidth of the links)

A roofline: each of the three at the peak of the device and hidden behind the
longest. A real step takes longer than its arithmetic at peak, often twice as
long; of the bytes moved some never leave the chip, so the second may be too
large.
"""

from cdm.distributed import device_specs

HOUR, DAY = 3600.0, 86400.0
SAMPLES = 50_000  # what FID is measured on
NOTE = 'a roofline estimate from device peaks; nothing was run'


def row(facts, prices):
  """-> what `measure` found, with the key 'estimate' (None: no basis for one).

  Args:
    facts: see `compilation.measure`.
    prices: see `device_specs.parse_prices`.
  """
  piece = device_specs.parse(facts['topology'])
  known = piece.chip and facts['compiled_flops_per_step'] is not None
  return {
    **facts,
    'estimate': estimate(facts, piece, prices) if known else None,
  }


def estimate(facts, piece, prices):
  """-> JSON-able dict of seconds, images per second, chip-hours and dollars."""
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
    'bound_by': max(times, key=times.get),
    'images_per_second': images / seconds,
    'of': f'{runs:,} steps' if step else f'{SAMPLES:,} images',
    'days': runs * seconds / DAY,
    'chip_hours': chip_hours,
    'price_per_chip_hour': price,
    'price_source': source,
    'dollars': None if price is None else price * chip_hours,
  }


def roofline(facts, piece):
  """-> {'compute', 'memory', 'interconnect': seconds}, each at its peak."""
  chip = piece.chip
  flops = facts['compiled_flops_per_step'] / piece.devices
  sent = sum(row['wire_bytes'] for row in facts['collectives'].values())
  return {
    'compute': flops * chip.cores / chip.flops,
    'memory': facts['bytes_moved_per_device'] * chip.cores / chip.hbm_bandwidth,
    'interconnect': sent * chip.cores / chip.link_bandwidth,
  }
