"""Reads a compiled program's text: its collectives, its loops.

What is counted is what one run of the program does: a collective inside a loop
counts as often as the loop turns. The compiler may cut one collective into
pieces that overlap with other work; the pieces share a channel and count once.
"""

import math
import re
from typing import NamedTuple

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
_CHANNEL = re.compile(r'channel_id=(\d+)')


class Collective(NamedTuple):
  """One exchange between devices.

  Attributes:
    kind: one of `KINDS`.
    payload_bytes: of the whole array on one device: what is reduced, what
      comes of gathering, what goes into scattering.
    group: devices that take part.
    turns: how often it is run.
  """

  kind: str
  payload_bytes: int
  group: int
  turns: int

  @property
  def wire_bytes(self):
    """-> bytes that leave each device in all, at the least."""
    part = (self.group - 1) / self.group
    share = {'all-reduce': 2 * part, 'collective-permute': 1.0}
    return self.turns * self.payload_bytes * share.get(self.kind, part)


def collectives(text, *, devices):
  """-> [Collective, ...] of a compiled module.

  Args:
    text: what `compiled.as_text()` returns.
    devices: of the program; the size of a group that is not written.
  """
  found, channels = [], set()
  computations, entry = _computations(text)
  for name, turns in _turns(computations, entry):
    for line in computations[name]:
      match = _CALL.search(line)
      if not match:
        continue
      channel = _CHANNEL.search(line)
      if channel:
        if channel[1] in channels:
          continue
        channels.add(channel[1])
      one = _collective(line, match, name, turns, devices)
      if one.group > 1:
        found.append(one)
  return found


def loops(text):
  """-> [turns, ...] of the loops that the entry runs, nested ones too."""
  computations, entry = _computations(text)
  found = []
  for name, _ in _turns(computations, entry):
    for line in computations[name]:
      if ' while(' in line:
        found.append(_trips(line, computations))
  return found


def summary(found):
  """-> {kind: {'count', 'payload_bytes', 'wire_bytes'}}, per device."""
  table = {}
  for one in found:
    row = table.setdefault(
      one.kind, {'count': 0, 'payload_bytes': 0, 'wire_bytes': 0}
    )
    row['count'] += one.turns
    row['payload_bytes'] += one.turns * one.payload_bytes
    row['wire_bytes'] += round(one.wire_bytes)
  return table


def rematerialized(text):
  """-> how many instructions the compiler repeats to save memory."""
  return len(re.findall(r'^\s+(?:ROOT )?%\S*\.remat\S* = ', text, re.MULTILINE))


def bytes_of(shape):
  """-> int, bytes of every array in a written shape, a tuple's added up."""
  total = 0
  for dtype, sizes in _ARRAY.findall(shape):
    count = math.prod(int(n) for n in sizes.split(',') if n)
    total += count * _bits(dtype) // 8
  return total


def _bits(dtype):
  if dtype == 'pred':
    return 8
  return int(re.search(r'\d+', dtype)[0])


def _computations(text):
  """-> ({name: [line, ...]}, name of the entry)."""
  found, lines, entry = {}, None, None
  for line in text.splitlines():
    if lines is None:
      match = _COMPUTATION.match(line)
      if match:
        lines = found[match[2]] = []
        entry = match[2] if match[1] else entry
    elif line.startswith('}'):
      lines = None
    else:
      lines.append(line)
  return found, entry


def _turns(computations, entry):
  """-> [(computation, how often it runs), ...], each once, callers first."""
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


def _trips(line, computations):
  """-> turns of a while: as written, or its condition's `counter < constant`.

  1 where neither is there.
  """
  known = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line)
  if known:
    return int(known[1])
  condition = re.search(r'condition=%?([^\s,)]+)', line)
  lines = computations.get(condition[1], []) if condition else []
  constants = {}
  for each in lines:
    match = re.match(r'\s+(?:ROOT )?(%\S+) = \S+ constant\((\d+)\)', each)
    if match:
      constants[match[1]] = int(match[2])
  for each in lines:
    match = re.search(r' compare\(.*?(%[^\s,)]+)\), direction=LT', each)
    if match and match[1] in constants:
      return constants[match[1]]
  return 1


def _collective(line, match, computation, turns, devices):
  kind, start = match[2], match[3]
  group = _group(line, devices)
  shape = line[: match.start()].partition(' = ')[2]
  size = bytes_of(shape.replace('u32[]', ''))  # tokens of a start
  if start and kind == 'all-gather':  # (what goes in, what comes out)
    size = size * group // (group + 1)
  elif start and kind == 'collective-permute':
    size = size // 2
  if kind == 'reduce-scatter':  # its result is one part
    size *= group
  if kind == 'all-reduce' and computation.startswith('all-reduce-scatter'):
    kind = 'reduce-scatter'  # as XLA:TPU writes it: reduce, then keep a part
  return Collective(kind, size, group, turns)


def _group(line, devices):
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
