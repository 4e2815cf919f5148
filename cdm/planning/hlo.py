"""Counts the collectives and loops in the HLO text of a compiled program.

The counts are those of one run of the program: a collective inside a loop
counts once per iteration. The compiler may cut one collective into pieces that
overlap with other work; the pieces share a channel and the name of an operation
of the program, and count once.

What a collective sends between slices (see `distributed.slices`) is counted
apart. Programs state it in two ways. The CPU's compiler writes one program for
all devices, in which a group of devices may span slices. The TPU's compiler
writes the program of one slice, in which collectives stay inside it, and sends
to the other slices are transfers of the host:

  send(%part, ...), is_host_transfer=true,
    frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE", ...}
"""

import collections
import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypedDict

import numpy as np

KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
  'collective-broadcast',
)
_COMPUTATION = re.compile(r'^(ENTRY )?%?([^\s(]+) \(.*\{$')
_CALL = re.compile(
  rf' (ragged-)?({"|".join(KINDS)})(-start)?\((?!.*-done\()', re.DOTALL
)
_ARRAY = re.compile(r'\b(pred|bf16|[sufc]\d+[a-z0-9]*)\[([\d,]*)\]')
_CALLED = re.compile(
  r'(?:calls|to_apply|body|branch_computations|true_computation|'
  r'false_computation|called_computations)=(\{[^}]*\}|%?[^\s,)]+)'
)
_BETWEEN = re.compile(r' send\(.*_xla_megascale_transfer_type="(\w+)"')
BETWEEN = ' between slices'  # ends the name of a kind in a `summary`
_CHANNEL = re.compile(r'channel_id=(\d+)')
_GROUPS = re.compile(r'replica_groups=(mesh.*?\}|.*?)(?:, [a-z_]+=|$)')
_OPERATION = re.compile(r'op_name="([^"]*)"')


class Collective(NamedTuple):
  """A collective operation between devices.

  Attributes:
    kind: one of `KINDS`.
    payload_bytes: size of the whole array on one device: the operand of an
      all-reduce or reduce-scatter, the result of an all-gather.
    group: number of devices that take part.
    turns: how often one run of the program executes the operation.
    slices: number of slices that these devices lie in.
  """

  kind: str
  payload_bytes: int
  group: int
  turns: int
  slices: int = 1

  @property
  def wire_bytes(self) -> float:
    """Returns the least number of bytes that a device sends, in all turns.

    Without those that it sends to other slices.
    """
    if self.kind == 'collective-permute' and self.slices > 1:
      return 0.0
    inside = max(1, self.group // self.slices)
    return self.turns * self.payload_bytes * _share(self.kind, inside)

  @property
  def part_bytes(self) -> int:
    """Returns the size of what a device exchanges with other slices.

    The devices of a slice first add up what they have, or later share out what
    they get, so that each exchanges its part only.
    """
    if self.kind in ('all-to-all', 'collective-permute'):
      return self.payload_bytes
    return self.payload_bytes // max(1, self.group // self.slices)

  @property
  def between_bytes(self) -> float:
    """Returns the least number of bytes that a device sends to other slices."""
    if self.slices == 1:
      return 0.0
    return self.turns * self.part_bytes * _share(self.kind, self.slices)


class CollectiveTotal(TypedDict):
  """The sum of the collectives of one kind in one run of a program.

  Attributes:
    count: number of collectives executed.
    payload_bytes: sum of their payloads, on one device.
    wire_bytes: the least number of bytes that a device sends.
  """

  count: int
  payload_bytes: int
  wire_bytes: int


def _share(kind: str, members: int) -> float:
  """Returns the bytes that each member of a group sends per byte of payload."""
  part = (members - 1) / members
  share = {'all-reduce': 2 * part, 'collective-permute': 1.0}
  return share.get(kind, part)


def collectives(
  text: str, *, devices: int, num_slices: int = 1
) -> list[Collective]:
  """Returns the collectives that a compiled program executes.

  Collectives of a single device are left out, because they exchange nothing.

  Args:
    text: the HLO text, which the `as_text()` of a compiled program returns.
    devices: number of devices of the program; the size of a group where the
      text does not state one.
    num_slices: number of slices that these devices form, one after the other.

  Returns:
    The collectives. In the program of one of several slices, pieces of a gather
    cannot be told from gathers alike, because their names are lost; those in
    different computations count once, so that the bytes of gathers inside a
    slice may be too few there.
  """
  found, channels = [], set()
  computations, entry = _computations(text)
  if num_slices > 1 and _BETWEEN.search(text):
    # The groups of this text are those of one slice.
    devices, per_slice = devices // num_slices, None
  else:
    per_slice = devices // num_slices
  for name, turns in _turns(computations, entry):
    alike = collections.Counter()
    for line in computations[name]:
      between = _BETWEEN.search(line)
      if between:
        found.append(_transfer(line, between, turns, num_slices))
      match = _CALL.search(line)
      if not match:
        continue
      channel = _CHANNEL.search(line)
      if channel:
        # The collectives of a `jax.shard_map` all have the same channel, and
        # the sums of a tree of arrays the same name.
        operation = _OPERATION.search(line)
        groups = _GROUPS.search(line)
        piece = (channel[1], operation and operation[1])
        piece += (match[2], groups and groups[1])
        if num_slices > 1:
          # The program of a slice has lost the names of many operations. Two
          # collectives in one computation are not pieces of one.
          piece += (line[: match.start()].partition(' = ')[2],)
          alike[piece] += 1
          piece += (alike[piece],)
        if piece in channels:
          continue
        channels.add(piece)
      collective = _collective(line, match, name, turns, devices)
      if collective.group > 1:
        spanned = _slices_of(line, collective.group, devices, per_slice)
        found.append(collective._replace(slices=spanned))
  return found


def loops(text: str) -> list[int]:
  """Returns the number of iterations of every loop, nested loops included."""
  computations, entry = _computations(text)
  iterations = []
  for name, _ in _turns(computations, entry):
    for line in computations[name]:
      if ' while(' in line:
        iterations.append(_trips(line, computations))
  return iterations


def summary(found: Iterable[Collective]) -> dict[str, CollectiveTotal]:
  """Adds up collectives by kind.

  Returns:
    {kind: total}, for the kinds that the program executes. What a kind sends
    between slices has an entry of its own, whose name ends with `BETWEEN`.
  """
  table: dict[str, CollectiveTotal] = {}

  def add(name: str, turns: int, payload_bytes: int, wire: float) -> None:
    row = table.setdefault(
      name, {'count': 0, 'payload_bytes': 0, 'wire_bytes': 0}
    )
    row['count'] += turns
    row['payload_bytes'] += turns * payload_bytes
    row['wire_bytes'] += round(wire)

  for one in found:
    if one.group > one.slices or one.slices == 1:
      add(one.kind, one.turns, one.payload_bytes, one.wire_bytes)
    if one.slices > 1:
      name = one.kind + BETWEEN
      add(name, one.turns, one.part_bytes, one.between_bytes)
  return table


def rematerialized(text: str) -> int:
  """Returns how many instructions the compiler repeats to save memory."""
  return len(re.findall(r'^\s+(?:ROOT )?%\S*\.remat\S* = ', text, re.MULTILINE))


def bytes_of(shape: str) -> int:
  """Returns the bytes of a shape in HLO text, e.g. 'f32[8,4]{1,0}'.

  The arrays of a tuple are added up.
  """
  total = 0
  for dtype, sizes in _ARRAY.findall(shape):
    count = math.prod(int(n) for n in sizes.split(',') if n)
    total += count * _bits(dtype) // 8
  return total


def _bits(dtype: str) -> int:
  if dtype == 'pred':  # A boolean takes a byte.
    return 8
  digits = re.search(r'\d+', dtype)
  assert digits is not None  # `_ARRAY` matches types with a number of bits.
  return int(digits[0])


def _computations(text: str) -> tuple[dict[str, list[str]], str | None]:
  """Splits HLO text into ({computation: lines}, name of the entry)."""
  computations, lines, entry = {}, None, None
  for line in text.splitlines():
    if lines is None:
      match = _COMPUTATION.match(line)
      if match:
        lines = computations[match[2]] = []
        entry = match[2] if match[1] else entry
    elif line.startswith('}'):
      lines = None
    else:
      lines.append(line)
  return computations, entry


def _turns(
  computations: Mapping[str, list[str]], entry: str | None
) -> list[tuple[str, int]]:
  """Returns every computation that runs, with how often it runs.

  Each computation is listed once, after the first one that calls it.
  """
  order, times = [entry] if entry else [], {entry: 1}
  for name in order:
    for line in computations[name]:
      turns = times[name]
      if ' while(' in line:
        turns *= _trips(line, computations)
      for group in _CALLED.findall(line):
        for called in re.findall(r'[^\s,{}%]+', group):
          if called in computations and called not in times:
            times[called] = turns
            order.append(called)
  return [(name, times[name]) for name in order]


def _trips(line: str, computations: Mapping[str, list[str]]) -> int:
  """Returns the number of iterations of a while loop.

  The number is the trip count that the line states, or else the constant of a
  condition `counter < constant`, or else 1.
  """
  known = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line)
  if known:
    return int(known[1])
  condition = re.search(r'condition=%?([^\s,)]+)', line)
  lines = computations.get(condition[1], []) if condition else []
  constants = {}
  for condition_line in lines:
    match = re.match(
      r'\s+(?:ROOT )?(%\S+) = \S+ constant\((\d+)\)', condition_line
    )
    if match:
      constants[match[1]] = int(match[2])
  for condition_line in lines:
    match = re.search(
      r' compare\(.*?(%[^\s,)]+)\), direction=LT', condition_line
    )
    if match and match[1] in constants:
      return constants[match[1]]
  return 1


def _collective(
  line: str, match: re.Match[str], computation: str, turns: int, devices: int
) -> Collective:
  """Reads a collective from its line of HLO text.

  Args:
    line: the line.
    match: the match of `_CALL` in the line.
    computation: name of the computation that holds the line.
    turns: how often that computation runs.
    devices: number of devices of the program.
  """
  kind, start = match[2], match[3]
  group = _group(line, devices)
  shape = line[: match.start()].partition(' = ')[2]
  # The result of an asynchronous start also holds u32[] tokens.
  size = bytes_of(shape.replace('u32[]', ''))
  if start and kind == 'all-gather':  # Its shape is (operand, result).
    size = size * group // (group + 1)
  elif start and kind == 'collective-permute':
    size = size // 2
  if kind == 'reduce-scatter':  # Its result is one part of the array.
    size *= group
  # XLA:TPU writes a reduce-scatter as an all-reduce of which a part is kept.
  if kind == 'all-reduce' and computation.startswith('all-reduce-scatter'):
    kind = 'reduce-scatter'
  return Collective(kind, size, group, turns)


def _transfer(
  line: str, match: re.Match[str], turns: int, num_slices: int
) -> Collective:
  """Reads what a device exchanges with its peers in the other slices.

  Args:
    line: the line of a send, whose result is (operand, context, token).
    match: the match of `_BETWEEN` in the line.
    turns: how often its computation runs.
    num_slices: number of slices.
  """
  kind = match[1].lower().replace('_', '-')
  size = bytes_of(line[: match.start()].replace('u32[]', ''))
  if kind == 'all-gather':  # A device sends one part of the result.
    size *= num_slices
  return Collective(kind, size, num_slices, turns, slices=num_slices)


def _slices_of(
  line: str, group: int, devices: int, per_slice: int | None
) -> int:
  """Returns in how many slices the devices of a collective lie.

  Args:
    line: the line of the collective.
    group: number of devices that take part.
    devices: number of devices of the program.
    per_slice: number of devices of a slice; None if no group can leave it.
  """
  if per_slice is None or per_slice >= devices:
    return 1
  pairs = re.search(r'source_target_pairs=\{(\{.*?\})\}', line)
  if pairs:
    ends = re.findall(r'\{(\d+),(\d+)\}', pairs[1])
    leaves = any(int(a) // per_slice != int(b) // per_slice for a, b in ends)
    return devices // per_slice if leaves else 1
  found = (
    {int(device) // per_slice for device in members}
    for members in _groups(line, group, devices)
  )
  return max(map(len, found))


def _groups(line: str, group: int, devices: int) -> np.ndarray:
  """Returns the devices of every group of a collective, [groups, members].

  See `_group` for the notations.
  """
  named = re.search(
    r'replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^)]*(?:\)[^)]*)?)\))?'
    r"[^{]*\{('[^}]*)\}",
    line,
  )
  if named:
    sizes = dict(re.findall(r"('[^']+')=(\d+)", named[1]))
    ids = np.arange(devices) if named[2] is None else _iota(named[2])
    axes, kept = list(sizes), named[3].split(',')
    order = [axes.index(a) for a in axes if a not in kept]
    order += [axes.index(a) for a in kept]
    grid = ids.reshape([int(sizes[axis]) for axis in axes])
    return grid.transpose(order).reshape(-1, group)
  iota = re.search(
    r'replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)', line
  )
  if iota:
    shape, _, source = iota[1].partition('<=')
    return _iota(source).reshape([int(n) for n in shape[1:-1].split(',')])
  listed = re.search(r'replica_groups=\{(\{[\d,{}]+\})\}', line)
  if listed:
    groups = re.findall(r'\{([\d,]+)\}', listed[1])
    return np.array([[int(n) for n in each.split(',')] for each in groups])
  return np.arange(devices)[None]


def _iota(text: str) -> np.ndarray:
  """Reads '[4,2]T(1,0)': the numbers from 0 in that shape, transposed, flat."""
  shape, _, order = text.partition('T')
  numbers = [int(n) for n in re.findall(r'\d+', shape)]
  grid = np.arange(math.prod(numbers)).reshape(numbers)
  if order:
    grid = grid.transpose([int(n) for n in re.findall(r'\d+', order)])
  return grid.reshape(-1)


def _group(line: str, devices: int) -> int:
  """Returns how many devices take part in the collective of a line.

  HLO text has three notations of groups: axes of a named mesh, an iota
  [groups, size], and lists of devices.
  """
  if 'source_target_pairs' in line:
    return max(devices, 2)
  named = re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{('[^}]*)\}", line)
  if named:
    sizes = dict(re.findall(r"('[^']+')=(\d+)", named[1]))
    return math.prod(int(sizes[axis]) for axis in named[2].split(','))
  iota = re.search(r'replica_groups=\[\d+,(\d+)\]', line)
  if iota:
    return int(iota[1])
  listed = re.search(r'replica_groups=\{\{([\d,]+)\}', line)
  if listed:
    return len(listed[1].split(','))
  return devices
