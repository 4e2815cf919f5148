"""Estimates the time and cost of a compiled program with a roofline model.

  step time = max(FLOPs / peak, bytes moved / HBM bandwidth,
                  bytes sent / bandwidth of the links,
                  bytes sent between slices / bandwidth of the network)

The model assumes that arithmetic, memory, links and network each work at their
peak, and that the longest of the four hides the others. Nothing is run. A real
step takes longer than its arithmetic at peak, often twice as long. Some of the
bytes moved never leave the chip, so the second term may be too large.

For GPUs the FLOPs and bytes are those of the program that is compiled for CPUs,
which computes in float32: the bytes of the GPU's program are fewer. For a CPU
the peak is the speed of a matrix product, measured on this machine, and the
other terms are left out.
"""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from cdm.distributed import device_specs
from cdm.planning import hlo, plan_types

HOUR, DAY = 3600.0, 86400.0
SAMPLES = 50_000  # FID is measured on this many images.
NOTE = 'a roofline estimate from device peaks; nothing was run'
CPU_NOTE = 'an estimate from the speed of a matrix product on this CPU'


class Estimate(TypedDict):
  """Time and cost of a training run, or of drawing `SAMPLES` images.

  Attributes:
    note: says that this is an estimate.
    compute_seconds: seconds that a step's FLOPs take at the peak.
    memory_seconds: seconds that moving its bytes takes at the peak.
    interconnect_seconds: seconds that sending its bytes takes at the peak.
    network_seconds: seconds that sending its bytes to other slices takes at the
      peak; 0 also if the bandwidth of the network is unknown.
    step_seconds: seconds of a step, or of a batch of samples.
    bound_by: the longest term: 'compute', 'memory', 'interconnect' or
      'network'.
    images_per_second: images of the whole slice.
    evaluation_fraction: share of that duration that evaluations in training
      take.
    of: the job that days, chip-hours and dollars are for, e.g. '50,000 images'.
    days: duration of all steps or batches.
    chip_hours: the same duration in chip-hours.
    price_per_chip_hour: dollars, or None if no price is known.
    price_source: where the price comes from, or why no price is known.
    dollars: cost, or None if no price is known.
  """

  note: str
  compute_seconds: float
  memory_seconds: float
  interconnect_seconds: float
  network_seconds: float
  step_seconds: float
  bound_by: str
  images_per_second: float
  evaluation_fraction: float
  of: str
  days: float
  chip_hours: float
  price_per_chip_hour: float | None
  price_source: str
  dollars: float | None


class Row(plan_types.Facts):
  """A plan: the facts about a program on a slice, with an estimate.

  Attributes:
    estimate: time and cost; None for a program that does not fit.
    search: the largest batch that fits; `cdm plan --search` adds it.
  """

  estimate: Estimate | None
  search: NotRequired[plan_types.Largest]


def row(facts: plan_types.Facts, prices: Mapping[str | None, float]) -> Row:
  """Returns the facts about a program with an estimate of time and cost.

  Args:
    facts: what `compilation.measure` returned.
    prices: what `device_specs.parse_prices` returned.

  Returns:
    The facts with the key 'estimate', None for a program that does not fit.
  """
  piece = device_specs.parse(facts['topology'])
  known = facts['fits'] and facts['compiled_flops_per_step'] is not None
  return {
    **facts,
    'estimate': estimate(facts, piece, prices) if known else None,
  }


def estimate(
  facts: plan_types.Facts,
  piece: device_specs.Slice,
  prices: Mapping[str | None, float],
) -> Estimate:
  """Estimates the time and cost of a training run or of drawing samples.

  Args:
    facts: what `compilation.measure` returned for a program that fits.
    piece: the slice.
    prices: what `device_specs.parse_prices` returned.

  Returns:
    The estimate, of the whole training run or of `SAMPLES` images.
  """
  times = roofline(facts, piece)
  seconds = max(times.values())
  step = facts['step'] == 'train'
  images = facts['batch_size']
  made = facts['num_steps'] if step else SAMPLES / images
  assert made is not None, 'a training run has a number of steps'
  runs = made + facts['evaluation_steps']
  chip_hours = runs * seconds / HOUR * piece.chips
  price, source = device_specs.price_of(piece, prices)
  return {
    'note': NOTE if piece.chip else CPU_NOTE,
    'compute_seconds': times['compute'],
    'memory_seconds': times['memory'],
    'interconnect_seconds': times['interconnect'],
    'network_seconds': times['network'],
    'step_seconds': seconds,
    'bound_by': max(times, key=lambda name: times[name]),
    'images_per_second': images / seconds,
    'evaluation_fraction': facts['evaluation_steps'] / runs,
    'of': f'{made:,} steps' if step else f'{SAMPLES:,} images',
    'days': runs * seconds / DAY,
    'chip_hours': chip_hours,
    'price_per_chip_hour': price,
    'price_source': source,
    'dollars': None if price is None else price * chip_hours,
  }


def roofline(
  facts: plan_types.Facts, piece: device_specs.Slice
) -> dict[str, float]:
  """Returns the seconds that each of the four terms takes at its peak.

  The keys are 'compute', 'memory', 'interconnect' and 'network'.
  """
  chip = piece.chip
  work = facts['compiled_flops_per_step']
  if chip is None:
    speed = facts['cpu_flops']
    assert work is not None and speed is not None
    # The simulated devices share the CPU.
    return {
      'compute': work / speed,
      'memory': 0.0,
      'interconnect': 0.0,
      'network': 0.0,
    }
  moved = facts['bytes_moved_per_device']
  collectives = facts['collectives']
  assert work is not None and moved is not None and collectives is not None
  flops = work / piece.devices
  sent = {True: 0, False: 0}  # {whether to another slice: bytes}
  for name, row in collectives.items():
    sent[name.endswith(hlo.BETWEEN)] += row['wire_bytes']
  network = chip.network_bandwidth
  return {
    'compute': flops * chip.cores / chip.flops,
    'memory': moved * chip.cores / chip.hbm_bandwidth,
    'interconnect': sent[False] * chip.cores / chip.link_bandwidth,
    'network': sent[True] * chip.cores / network if network else 0.0,
  }
