"""Feeds damaged and hostile files to every reader, and counts how they end.

  python benchmarks/fuzz.py --out=DIR --inputs=50000

Every input is derived from a sound file by a few changes: bytes, lengths,
values of JSON, members of archives whose checksums are made to fit again. Input
n of a reader depends on (seed, reader, n) only. Worker processes read thousands
of inputs each, with limits on memory and time. DIR/fuzz.jsonl grows by a line
per block of inputs; started again, the script goes on after the last one, and
in the end it writes the table of docs/reliability.md to DIR/table.md.
"""

import argparse
import collections
import json
import os
import pathlib
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the cdm of this checkout

from benchmarks import fuzz_inputs, fuzz_readers  # noqa: E402
from cdm.distributed import exit_codes  # noqa: E402
from cdm.reporting import jsonl, text_table  # noqa: E402

BLOCK = 1000  # inputs of one line of fuzz.jsonl
MOST_BYTES = 1 << 30  # of memory that one input may add
MOST_SECONDS = 20  # of processor time, which a busy machine does not use up
OUTCOMES = ('refused', 'accepted', 'tracebacks', 'hangs', 'memory')


class Hang(BaseException):
  """An input took longer than MOST_SECONDS."""


def outcome(reader, path):
  """-> (one of OUTCOMES, the error in words or None) of reading a file."""
  try:
    reader.read(path)
  except MemoryError as error:
    return 'memory', repr(error)
  except Hang:
    return 'hangs', f'more than {MOST_SECONDS} s'
  except Exception as error:
    kinds = (exit_codes.DATA_ERROR, exit_codes.BAD_INPUT)
    if exit_codes.classify(error) in kinds:
      return 'refused', None
    return 'tracebacks', ''.join(traceback.format_exception(error)[-6:])
  return 'accepted', None


def work(name, first, count, seed):
  """Reads inputs and prints a line before and after each of them."""
  signal.signal(signal.SIGPROF, hang)
  with tempfile.TemporaryDirectory(dir=shared_memory()) as folder:
    folder = pathlib.Path(folder)
    reader = fuzz_readers.READERS[name](folder)
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the readers print
    os.dup2(1, 2)
    limit_memory()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(first, first + count):
      answers.write(f'{{"begun": {n}}}\n')
      path = reader.place(fuzz_inputs.damaged(reader.seeds, seed, name, n))
      signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
      found, text = outcome(reader, path)
      signal.setitimer(signal.ITIMER_PROF, 0)
      peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
      if peak - base > MOST_BYTES // 1024:
        found, text, base = 'memory', f'{(peak - base) // 1024} MB', peak
      answers.write(json.dumps([n, found, text]) + '\n')


def hang(*_):
  raise Hang


def limit_memory():
  """Leaves this process 2 GB of addresses more than it has now."""
  pages = int(
    pathlib.Path('/proc/self/statm').read_text(encoding='utf-8').split()[0]
  )
  limit = pages * resource.getpagesize() + 2 * MOST_BYTES
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def shared_memory():
  return '/dev/shm' if os.access('/dev/shm', os.W_OK) else None


def run_block(name, first, count, seed):
  """-> ({outcome: number}, [what went wrong]) of a block of inputs."""
  counts, faults, n = collections.Counter(), [], first
  while n < first + count:
    command = [sys.executable, __file__, '--worker', name]
    command += [str(n), str(first + count - n), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
      for found in answers_of(process):
        if isinstance(found, list):
          counts[found[1]] += 1
          n = found[0] + 1
          if found[2]:
            faults.append(found)
      process.kill()
    if n < first + count:  # it was ended from outside, or hung in C
      how = 'hangs' if process.returncode == -signal.SIGKILL else 'tracebacks'
      faults.append([n, how, f'the process ended with {process.returncode}'])
      counts[how] += 1
      n += 1
  return counts, faults


def answers_of(process):
  """Yields the lines of a worker, until it ends or is silent for too long."""
  buffer = b''
  while True:
    ready, _, _ = select.select([process.stdout], [], [], 15 * MOST_SECONDS)
    data = os.read(process.stdout.fileno(), 1 << 16) if ready else b''
    if not data:
      return
    *lines, buffer = (buffer + data).split(b'\n')
    yield from map(json.loads, lines)


def table(rows):
  """-> the lines of the table, one per reader and their sum."""
  sums = collections.defaultdict(collections.Counter)
  for row in rows:
    for each in (row['reader'], 'all'):
      sums[each]['inputs'] += row['count']
      sums[each].update(row['counts'])
  total = sums.pop('all', collections.Counter())
  heads = ('inputs', *OUTCOMES)
  lines = ['| reader | ' + ' | '.join(heads) + ' |']
  lines.append('|---|' + '---:|' * len(heads))
  for name, counts in [*sorted(sums.items()), ('**all**', total)]:
    cells = [f'{counts[head]:,}' for head in heads]
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return lines


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--inputs', type=int, default=50_000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--readers', nargs='*', default=fuzz_readers.READERS)
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  path = args.out / 'fuzz.jsonl'
  rows = jsonl.read(path)
  done = {(row['reader'], row['first'], row['seed']) for row in rows}
  names = list(args.readers)
  each = -(-args.inputs // len(names) // BLOCK) * BLOCK
  for name in names:
    for first in range(0, each, BLOCK):
      if (name, first, args.seed) in done:
        continue
      start = time.monotonic()
      counts, faults = run_block(name, first, BLOCK, args.seed)
      row = {'reader': name, 'first': first, 'count': BLOCK, 'seed': args.seed}
      row |= {'counts': counts, 'faults': faults}
      jsonl.append(path, [row])
      rows.append(row)
      shown = ', '.join(f'{v} {k}' for k, v in counts.items())
      took = time.monotonic() - start
      print(f'{name} {first:,}: {shown} ({took:.0f} s)', flush=True)
  lines = table(row for row in rows if row['seed'] == args.seed)
  (args.out / 'table.md').write_text('\n'.join(lines) + '\n', encoding='utf-8')
  print(
    '\n'.join(text_table.columns([line.split('|')[1:-1] for line in lines]))
  )


if __name__ == '__main__':
  if sys.argv[1:2] == ['--worker']:
    work(sys.argv[2], *map(int, sys.argv[3:]))
  else:
    main()
