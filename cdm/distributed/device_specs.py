"""Lists peak FLOPs, memory, bandwidth and price of devices; parses slices.

Peaks are those of a whole chip. Every number has its source:

  [cloud]  docs.cloud.google.com/tpu/docs/{v3,v4,v5e,v5p,v6e,tpu7x}: peak
           compute (bfloat16), HBM capacity and bandwidth, bidirectional
           inter-chip interconnect, data center network; read November 2026.
  [v6e]    The table of the page v6e there, which sets v5e beside v6e: HBM of
           800 and 1600 GBps. Google prints these two numbers in more than one
           way: 819 GBps stands on the page v5e and 1638 on tpu7x, 2.4% more,
           which is also two stacks of 1024 bits at 3.2 and 6.4 Gbit/s. The
           smaller ones are taken, so that no plan is too fast.
  [DSS]    Jouppi et al., "A Domain-Specific Supercomputer for Training Deep
           Neural Networks", CACM 63(7), 2020: v2 and v3; four links of 496
           and 656 Gbit/s in each direction.
  [v4]     Jouppi et al., ISCA 2023 (arXiv 2304.01433): six links of 50 GB/s in
           each direction.
  [libtpu] the memory that libtpu 0.0.42.1 names as available when it refuses a
           program that does not fit: HBM less what the runtime reserves.
  [sky]    Google's list prices, on demand, in its cheapest US region, as in
           SkyPilot's catalog (skypilot-org/skypilot-catalog,
           catalogs/v7/gcp/vms.csv at commit 017e250), read November 2026.
  [NVIDIA] the data sheet of each GPU, of its SXM form where there is one:
           bfloat16 Tensor Core peak without sparsity (half of the peak with
           sparsity, where only that is printed), memory, bandwidth, and NVLink
           (without it PCIe 4.0 with 16 lanes). A GPU of before 2020 computes in
           float16 at its peak.
  [DGX]    NVIDIA's data sheets of DGX-1, A100, H100, H200 and B200: adapters of
           a machine for the network between machines, shared by 8 GPUs: 4 of
           100, 8 of 200 and (the last three) 8 of 400 Gbit/s. A cluster may
           have less.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

GIB = 2**30
PRICES = 'list price on demand, US, read November 2026'


class Chip(NamedTuple):
  """The data of one kind of chip.

  Attributes:
    name: its usual name, e.g. 'TPU v3'.
    flops: peak FLOPs per second of the chip, with bfloat16 operands.
    hbm_bytes: memory of the chip.
    hbm_bandwidth: bytes per second between memory and chip.
    link_bandwidth: bytes per second that leave the chip on all its links
      together: half of the advertised bidirectional bandwidth.
    axes: number of axes of a slice's topology: 2 or 3, or 1 for GPUs.
    cores: number of JAX devices per chip.
    usable_bytes: memory of one JAX device that a program may fill; of a GPU
      95% of it, with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95.
    price: US dollars per chip-hour; None if no price is known.
    options: further arguments that JAX needs to describe a topology of this
      chip.
    network_bandwidth: bytes per second that a chip's share of its host sends
      over the data center network, which joins slices; None if it is unknown.
  """

  name: str
  flops: float
  hbm_bytes: int
  hbm_bandwidth: float
  link_bandwidth: float
  axes: int
  cores: int
  usable_bytes: int
  price: float | None
  options: dict = {}
  network_bandwidth: float | None = None

  @property
  def is_tpu(self) -> bool:
    """Whether it is a TPU, for which this machine can compile programs."""
    return self.name.startswith('TPU')


def _gpu(
  name: str,
  flops: float,
  gigabytes: int,
  bandwidth: float,
  links: float,
  network: float | None = None,
) -> Chip:
  """Returns the data of a GPU; its memory is given in decimal gigabytes."""
  memory = gigabytes * 10**9
  usable = int(0.95 * memory)
  chip = Chip(name, flops, memory, bandwidth, links, 1, 1, usable, None)
  return chip._replace(network_bandwidth=network)


CHIPS = {
  'v2': Chip(
    name='TPU v2',
    flops=46e12,  # [DSS]
    hbm_bytes=16 * GIB,  # [DSS]
    hbm_bandwidth=700e9,  # [DSS]
    link_bandwidth=4 * 62e9,  # [DSS]
    axes=2,
    cores=2,
    usable_bytes=int(7.48 * GIB),  # [libtpu]
    price=1.5,  # [sky], for slices of 32 cores and more
  ),
  'v3': Chip(
    name='TPU v3',
    flops=123e12,  # [cloud]
    hbm_bytes=32 * GIB,  # [cloud]
    hbm_bandwidth=900e9,  # [cloud]
    link_bandwidth=4 * 82e9,  # [DSS]
    axes=2,
    cores=2,
    usable_bytes=int(15.48 * GIB),  # [libtpu]
    price=2.0,  # [sky]
  ),
  'v4': Chip(
    name='TPU v4',
    flops=275e12,  # [cloud]
    hbm_bytes=32 * GIB,  # [cloud]
    hbm_bandwidth=1200e9,  # [cloud]
    link_bandwidth=300e9,  # [v4]
    axes=3,
    cores=1,  # JAX sees both cores as one device.
    usable_bytes=int(30.75 * GIB),  # [libtpu]
    price=3.22,  # [sky]
    options={'chip_config_name': 'megacore'},
  ),
  'v5e': Chip(
    name='TPU v5e',
    flops=197e12,  # [cloud]
    hbm_bytes=16 * GIB,  # [cloud]
    hbm_bandwidth=800e9,  # [v6e]
    link_bandwidth=200e9,  # [cloud]: 400 GBps in both directions
    axes=2,
    cores=1,
    usable_bytes=int(15.75 * GIB),  # [libtpu]
    price=1.2,  # [sky]
    network_bandwidth=6.4e12 / 8 / 256,  # [cloud]: 6.4 Tbps of 256 chips
  ),
  'v5p': Chip(
    name='TPU v5p',
    flops=459e12,  # [cloud]
    hbm_bytes=96 * GIB,  # [cloud] says 95 GB; the compiler allows 95.74 GiB
    hbm_bandwidth=2765e9,  # [cloud]
    link_bandwidth=600e9,  # [cloud]: 1200 GBps in both directions
    axes=3,
    cores=1,
    usable_bytes=int(95.74 * GIB),  # [libtpu]
    price=4.2,  # [sky]
    network_bandwidth=50e9 / 8,  # [cloud]: 50 Gbps of a chip
  ),
  'v6e': Chip(
    name='TPU v6e',
    flops=918e12,  # [cloud]
    hbm_bytes=32 * GIB,  # [cloud]
    hbm_bandwidth=1600e9,  # [v6e]
    link_bandwidth=400e9,  # [cloud]: 800 GBps in both directions
    axes=2,
    cores=1,
    usable_bytes=int(31.25 * GIB),  # [libtpu]
    price=2.7,  # [sky]
    network_bandwidth=25.6e12 / 8 / 256,  # [cloud]: 25.6 Tbps of 256 chips
  ),
  'tpu7x': Chip(
    name='TPU7x',
    flops=2307e12,  # [cloud]
    hbm_bytes=192 * GIB,  # [cloud]
    hbm_bandwidth=7380e9,  # [cloud]
    link_bandwidth=600e9,  # [cloud]: 1200 GBps in both directions
    axes=3,
    cores=2,
    usable_bytes=int(94.75 * GIB),  # [libtpu]
    price=None,
    network_bandwidth=100e9 / 8,  # [cloud]: 100 Gbps of a chip
  ),
  # [NVIDIA] is the source from here on, and [DGX] of the last number.
  't4': _gpu('NVIDIA T4', 65e12, 16, 320e9, 16e9),  # its product brief
  'v100': _gpu('NVIDIA V100', 125e12, 16, 900e9, 150e9, 4 * 12.5e9 / 8),
  'l4': _gpu('NVIDIA L4', 121e12, 24, 300e9, 32e9),
  'l40s': _gpu('NVIDIA L40S', 362e12, 48, 864e9, 32e9),
  'a100': _gpu('NVIDIA A100', 312e12, 40, 1555e9, 300e9, 25e9),
  'a100-80gb': _gpu('NVIDIA A100', 312e12, 80, 2039e9, 300e9, 25e9),
  'h100': _gpu('NVIDIA H100', 989.4e12, 80, 3350e9, 450e9, 50e9),
  'h200': _gpu('NVIDIA H200', 989.4e12, 141, 4800e9, 450e9, 50e9),
  # Its memory and bandwidth are an eighth of [DGX] B200: 1,440 GB, 64 TB/s.
  'b200': _gpu('NVIDIA B200', 2250e12, 180, 8000e9, 900e9, 50e9),
}
# Beginning of `jax.Device.device_kind` -> peak FLOPs per second of that device.
# The first entry that matches counts.
PEAKS = {
  'TPU v2': CHIPS['v2'].flops / 2,
  'TPU v3': CHIPS['v3'].flops / 2,
  'TPU v4': CHIPS['v4'].flops,
  'TPU v5 lite': CHIPS['v5e'].flops,
  'TPU v5e': CHIPS['v5e'].flops,
  'TPU v5p': CHIPS['v5p'].flops,
  'TPU v5': CHIPS['v5p'].flops,  # must come after 'TPU v5 lite'
  'TPU v6': CHIPS['v6e'].flops,
  'TPU7x': CHIPS['tpu7x'].flops / 2,
  'NVIDIA A100': 312e12,  # [NVIDIA] is the source from here on.
  'NVIDIA H100 PCIe': 756e12,
  'NVIDIA H100': 989.4e12,
  'NVIDIA H200': 989.4e12,
  'NVIDIA B200': 2250e12,
  'NVIDIA L40S': 362e12,
  'NVIDIA L4': 121e12,
}
CPU = 'cpu'
EXAMPLES = 'v3:8x16, v4:4x4x8, v5e:16x16, v6e:16x16, h100:8, cpu:8'


def peak_flops(device_kind: str) -> float | None:
  """Returns the peak FLOPs per second of one device, with bfloat16 operands.

  Args:
    device_kind: `jax.Device.device_kind` of the device.

  Returns:
    The peak, or None if the device is not in `PEAKS`.
  """
  for name, peak in PEAKS.items():
    if device_kind.startswith(name):
      return peak
  return None


class Slice(NamedTuple):
  """A slice of chips with their interconnect, or a number of simulated devices.

  Or several equal slices, which the data center network joins.

  Attributes:
    topology: its name, e.g. 'v5e:16x16', 'h100:8', 'cpu:8' or, of two slices,
      'v5e:16x16:2'.
    kind: key of `CHIPS`, or 'cpu'.
    shape: number of chips of a slice along each axis; (number of devices,) for
      GPUs and 'cpu'.
    num_slices: number of slices.
  """

  topology: str
  kind: str
  shape: tuple[int, ...]
  num_slices: int = 1

  @property
  def chip(self) -> Chip | None:
    """The data of the slice's chips; None for 'cpu'."""
    return CHIPS.get(self.kind)

  @property
  def is_tpu(self) -> bool:
    """Whether it is a slice of TPUs, whose compiler needs no TPU."""
    return self.chip is not None and self.chip.is_tpu

  @property
  def name_of_one(self) -> str:
    """The name of one of the slices, e.g. 'v5e:16x16'."""
    return f'{self.kind}:' + 'x'.join(map(str, self.shape))

  @property
  def chips(self) -> int:
    """The number of chips of all slices."""
    return self.num_slices * math.prod(self.shape)

  @property
  def devices(self) -> int:
    """The number of JAX devices of all slices."""
    return self.chips * (self.chip.cores if self.chip else 1)

  @property
  def title(self) -> str:
    """A text for people, e.g. '128 x TPU v3 of 2 devices each'."""
    end = f', in {self.num_slices} slices' if self.num_slices > 1 else ''
    if not self.chip:
      return f'{self.devices} simulated devices of this CPU{end}'
    if self.chip.cores == 1:
      return f'{self.chips} x {self.chip.name}, a device each{end}'
    each = f'{self.chip.cores} devices each'
    return f'{self.chips} x {self.chip.name} of {each}{end}'


def parse(topology: str) -> Slice:
  """Parses the name of a slice.

  Args:
    topology: 'KIND:AxB', 'KIND:AxBxC' or 'KIND:N' with a key of `CHIPS`, or
      'cpu:N'; of S slices (or machines with GPUs), followed by ':S'.

  Raises:
    ValueError: if the name has another form, or the kind is unknown.
  """
  kind, _, rest = topology.partition(':')
  shape, colon, count = rest.partition(':')
  known = [*CHIPS, CPU]
  if kind not in known:
    near = difflib.get_close_matches(kind, known, n=1, cutoff=0.5)
    hint = f' Did you mean {near[0]}?' if near else ''
    raise ValueError(
      f'--topology={topology}: {kind!r} is not a known kind of device.{hint} '
      f'Known are {", ".join(known)}; for example {EXAMPLES}.'
    )
  axes = 1 if kind == CPU else CHIPS[kind].axes
  if not re.fullmatch('x'.join([r'[1-9]\d*'] * axes), shape):
    form = f'{kind}:N' if axes == 1 else f'{kind}:' + 'x'.join('ABC'[:axes])
    raise ValueError(
      f'--topology={topology}: a slice of {kind} is written {form}, '
      f'{"devices" if axes == 1 else "chips along each axis"}; for example '
      f'{EXAMPLES}.'
    )
  if colon and not re.fullmatch(r'[1-9]\d*', count):
    raise ValueError(
      f'--topology={topology}: {count!r} is not a number of slices; two slices '
      f'are written {kind}:{shape}:2.'
    )
  sides = tuple(int(n) for n in shape.split('x'))
  return Slice(topology, kind, sides, int(count) if colon else 1)


def with_slices(topology: str, num_slices: int | None) -> str:
  """Returns the name of a topology with the number of slices of --num_slices.

  Args:
    topology: see `parse`.
    num_slices: the number, or None to leave the name as it is.

  Raises:
    ValueError: if the number is below 1, or the name states a number itself.
  """
  if num_slices is None:
    return topology
  if num_slices < 1:
    raise ValueError(f'--num_slices is {num_slices}; it must be at least 1.')
  if topology.count(':') > 1:
    raise ValueError(
      f'--topology={topology} states its number of slices, and so does '
      f'--num_slices={num_slices}; give one of the two.'
    )
  return topology if num_slices == 1 else f'{topology}:{num_slices}'


def parse_prices(words: Iterable[str]) -> dict[str | None, float]:
  """Parses the values of --price.

  Args:
    words: each is 'X' or 'KIND=X', with X in dollars per chip-hour.

  Returns:
    {kind: dollars per chip-hour}; the key None holds for all other kinds.

  Raises:
    ValueError: if a value has another form.
  """
  prices: dict[str | None, float] = {}
  for word in words:
    kind, equals, number = word.rpartition('=')
    try:
      price = float(number)
    except ValueError:
      price = math.nan
    if (equals and kind not in CHIPS) or not 0 <= price < math.inf:
      raise ValueError(
        f'--price={word}: give dollars per chip-hour, as --price=1.20 or, for '
        f'one kind of chip, --price=v5e=1.20; kinds are {", ".join(CHIPS)}.'
      )
    prices[kind if equals else None] = price
  return prices


def price_of(
  piece: Slice, prices: Mapping[str | None, float]
) -> tuple[float | None, str]:
  """Returns the price of a slice and where the price comes from.

  Args:
    piece: the slice.
    prices: prices of the user, see `parse_prices`, which replace the list
      prices.

  Returns:
    (dollars per chip-hour or None if unknown, the source as a text).
  """
  for key in (piece.kind, None):
    if key in prices and piece.chip:
      return prices[key], 'as given by --price'
  if not piece.chip or piece.chip.price is None:
    return None, 'no price is known; give --price'
  return piece.chip.price, PRICES
