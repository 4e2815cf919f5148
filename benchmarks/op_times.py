"""Time by operation, from a trace that `jax.profiler` wrote.

  python benchmarks/op_times.py DIR [--steps=N]

prints two tables: kinds of operations, and the longest operations by name.
`train_step.py --profile=DIR` writes the trace and DIR/program.txt, the compiled
program, which tells what is inside a fusion. Without that file the kinds are
the names that XLA gave, as in `cdm train`'s own traces.

Time is self time: that of a loop is without that of its body. A CPU runs
several operations at once, so that their times may add up to more than the
steps took. On a CPU, operations are traced only if XLA_FLAGS has
--xla_cpu_enable_xprof_traceme=true before JAX starts.
"""

import argparse
import collections
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jax.profiler import ProfileData

PROGRAM = 'program.txt'
LONGEST = 15  # operations in the second table
# What a fusion or a custom call is, by the first of these that is inside it.
# The cuDNN and cuBLAS of GPUs are called by these targets.
INSIDE = (
  ('attention', r'fmha'),
  ('convolution', r'convolution|cudnn\$conv'),
  ('matrix product', r'dot|cublas|gemm|matmul'),
  ('reduction', r'reduce|reduce-window'),
  ('scatter and gather', r'scatter|gather|dynamic-slice|dynamic-update-slice'),
  ('sort', r'sort|top-?k'),
  ('random numbers', r'rng-bit-generator|rng'),
)
# Operations that only move or repeat numbers.
MOVES = frozenset(
  'bitcast bitcast-convert broadcast concatenate constant convert copy '
  'copy-start copy-done iota pad parameter reshape reverse slice transpose '
  'tuple get-tuple-element'.split()
)
COLLECTIVE = re.compile(r'all-|reduce-scatter|collective|send|recv')
CONTAINERS = ('while', 'call', 'conditional')


class Operation(NamedTuple):
  """An operation of a program, summed over a trace.

  Attributes:
    name: as in the program, such as 'transpose_copy_fusion.49'.
    kind: such as 'convolution'.
    seconds: self time.
    count: how often it ran.
  """

  name: str
  kind: str
  seconds: float
  count: int


def read(folder: pathlib.Path, program: str | None = None) -> list[Operation]:
  """Reads the newest trace of a folder.

  Args:
    folder: the folder that was given to `jax.profiler.trace`.
    program: text of the compiled program, of `Compiled.as_text`; None if it is
      not known.

  Returns:
    The operations, longest first.

  Raises:
    ValueError: there is no trace, or no operation in it.
  """
  files = sorted(folder.rglob('*.xplane.pb'), key=lambda f: f.stat().st_mtime)
  if not files:
    raise ValueError(
      f'{folder} holds no trace: no file *.xplane.pb. Give the folder that '
      '--profile or jax.profiler.trace was given.'
    )
  seconds, counts = collections.Counter(), collections.Counter()
  for line in _lines(ProfileData.from_file(str(files[-1]))):
    for name, own in self_times(line):
      seconds[name] += own / 1e9
      counts[name] += 1
  if not counts:
    raise ValueError(
      f'{files[-1]} holds no operation. On a CPU set '
      'XLA_FLAGS=--xla_cpu_enable_xprof_traceme=true before JAX starts.'
    )
  kinds = kinds_of(program) if program else {}
  found = [
    Operation(name, kinds.get(name, base(name)), seconds[name], counts[name])
    for name in counts
  ]
  return sorted(found, key=lambda op: -op.seconds)


def _lines(trace) -> Iterable[list[tuple[str, float, float]]]:
  """Yields the events of each thread, stream or core that ran operations.

  An event is (name, start, duration), in nanoseconds.
  """
  planes = list(trace.planes)
  devices = [p for p in planes if re.match(r'/device:(GPU|TPU)', p.name)]
  for plane in devices or planes:
    lines = list(plane.lines)
    # A TPU's plane repeats its operations by module, step and source.
    chosen = [line for line in lines if line.name == 'XLA Ops']
    if devices and not chosen:  # The streams of a GPU.
      chosen = [line for line in lines if line.name.startswith('Stream')]
    for line in chosen or ([] if devices else lines):
      events = []
      for event in line.events:
        name = dict(event.stats).get('hlo_op')
        if name is None and devices:
          name = event.name  # a kernel of a CUDA graph, or a copy
        if name is not None:
          events.append((name, event.start_ns, event.duration_ns))
      yield events


def self_times(
  events: Iterable[tuple[str, float, float]],
) -> list[tuple[str, float]]:
  """Takes from each event the time of the events within it.

  Args:
    events: (name, start, duration) of one thread, where two events are apart
      or one lies within the other.

  Returns:
    [(name, duration without that of the events directly within it)].
  """
  found, open_ends = [], []
  # Of two that start together, the longer one is around the other.
  for name, start, length in sorted(events, key=lambda e: (e[1], -e[2])):
    while open_ends and open_ends[-1][0] <= start:
      open_ends.pop()
    if open_ends:
      found[open_ends[-1][1]][1] -= length
    open_ends.append((start + length, len(found)))
    found.append([name, length])
  return [(name, own) for name, own in found]


def base(name: str) -> str:
  """Returns a name without its numbers: 'add_fusion.4' -> 'add_fusion'."""
  return re.sub(r'(\.(\d+|clone|remat\d*))+$', '', name)


def kinds_of(program: str) -> dict[str, str]:
  """Returns {name of an operation: its kind} of a compiled program's text."""
  bodies: dict[str, list[str]] = {}
  operations: dict[str, tuple[str, str]] = {}
  body: list[str] = []
  for line in program.splitlines():
    header = re.match(r'(?:ENTRY )?%?([\w.-]+) \(.*\{$', line)
    if header:
      body = bodies.setdefault(header[1], [])
      continue
    # The type of the result may hold parentheses, but no word before one.
    found = re.match(r'\s+(?:ROOT )?%?([\w.-]+) = .*?\s([a-z][\w-]*)\(', line)
    if found:
      body.append(found[2] + _target(line))
      operations[found[1]] = (found[2], line)
  return {
    name: _kind(code, line, bodies) for name, (code, line) in operations.items()
  }


def _target(line: str) -> str:
  found = re.search(r'custom_call_target="([^"]*)"', line)
  return f' {found[1]}' if found else ''


def _kind(code, line, bodies):
  """Returns the kind of the operation that a line of the program states."""
  if code in CONTAINERS:
    return 'loops and calls'
  inside = [code + _target(line)]
  called = re.search(r'calls=%?([\w.-]+)', line)
  if code == 'fusion' and called:
    inside = bodies.get(called[1], [])
  if any(COLLECTIVE.match(op) for op in inside):
    return 'collective'
  for kind, pattern in INSIDE:
    if any(re.search(rf'(?:^|[ _$])(?:{pattern})', op) for op in inside):
      return kind
  if all(op in MOVES for op in inside):
    return 'copy, transpose, pad'
  return 'custom call' if code == 'custom-call' else 'elementwise'


def table(
  found: Sequence[Operation], *, steps: int, seconds: float | None = None
) -> str:
  """Returns two Markdown tables, by kind and by operation.

  Args:
    found: what `read` returned.
    steps: number of traced steps.
    seconds: how long all of them took; None if that is not known.
  """
  total = sum(op.seconds for op in found)
  by_kind: dict[str, list[Operation]] = {}
  for op in found:
    by_kind.setdefault(op.kind, []).append(op)
  rows = [
    (kind, sum(op.seconds for op in ops), sum(op.count for op in ops))
    for kind, ops in by_kind.items()
  ]
  rows.sort(key=lambda row: -row[1])
  lines = []
  if seconds is not None:
    lines.append(
      f'{steps} steps of {1e3 * seconds / steps:.2f} ms; their operations add '
      f'up to {1e3 * total / steps:.2f} ms a step.\n'
    )
  lines += ['| kind | ms a step | share | runs a step |', '|---|---|---|---|']
  lines += [_row(row, steps, total) for row in rows]
  lines += [
    '',
    '| operation | ms a step | share | runs a step | kind |',
    '|---|---|---|---|---|',
  ]
  lines += [
    _row(op[:1] + op[2:], steps, total) + f' {op.kind} |'
    for op in found[:LONGEST]
  ]
  return '\n'.join(lines) + '\n'


def _row(row, steps, total):
  name, seconds, count = row
  share = seconds / total if total else 0.0
  return (
    f'| {name} | {1e3 * seconds / steps:.3f} | {share:.1%} | '
    f'{count / steps:g} |'
  )


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder', metavar='DIR', type=pathlib.Path)
  parser.add_argument(
    '--steps', type=int, default=1, help='number of traced steps'
  )
  args = parser.parse_args(argv)
  if args.steps < 1:
    parser.error(f'--steps is {args.steps}; it must be at least 1.')
  path = args.folder / PROGRAM
  program = path.read_text(encoding='utf-8') if path.exists() else None
  try:
    found = read(args.folder, program)
  except ValueError as error:
    parser.error(str(error))
  print(table(found, steps=args.steps), end='')


if __name__ == '__main__':
  main()
