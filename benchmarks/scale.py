"""Counts what a run costs in 1, 2, 4 and 8 processes of this machine.

  python benchmarks/scale.py --folder=DIR [--processes=1,2,4,8] [--repeats=1]
  python benchmarks/scale.py --table --folder=DIR    # of what is in DIR
  python benchmarks/scale.py --docs --folder=DIR     # that of operations.md

Each number of processes does the same work with the same commands: it trains
from nothing, restores and trains on, draws images, continues a folder of which
half is missing, and computes FID. For each process the calls to the file
system are counted by the kernel (strace, see `file_calls`), and the collectives
by `counted_cdm`. One line of JSON for each command and number of processes goes
to DIR/counts.jsonl; what is there is not run again. Some counts depend on the
clock, such as those of the files into which TensorStore gathers what it has
just got; so all may be repeated, and the table shows the smallest.

Then a table is printed: for each command and count the busiest process at 2, 4
and 8 processes, whether it grows by more than a tenth, and the line c0 + c1 P
through them, which gives the numbers for 64 and 512. One process takes other
paths in the code and is left out of the line.

The files are small and the network tiny, so the counts hold for this work only;
what matters is whether they grow. Seconds depend on the machine, whose
processes share two cores, and are not extrapolated.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import file_calls  # noqa: E402

CLASSES, PER_CLASS, SIDE = 4, 16, 16
OVERRIDES = {
  'model.features': 8,
  'model.multipliers': '(1,)',
  'model.attention_resolutions': '()',
  'model.norm_groups': 4,
  'train.batch_size': 8,
  'train.log_every_steps': 2,
  'train.save_every_steps': 2,
  'train.sample_every_steps': 4,
  'eval.every_steps': 4,
}
IMAGES = 32
LIMIT_SECONDS = 1800
COUNTS = 'counts.jsonl'
FILES = tuple(file_calls.KINDS)
SENT = (
  *('broadcasts', 'bytes of broadcasts', 'gathers', 'bytes of gathers'),
  *('barriers', 'store calls', 'bytes of store calls'),
)
# What a process counts itself, at no cost: the short form of `FILES`.
PYTHON = (
  *(f'files {word} by Python' for word in ('opened', 'listed', 'asked about')),
  *('bytes TensorStore read', 'bytes TensorStore wrote'),
)
# Decided by the clock: the monitor and the lock of the folder look every few
# seconds.
LOCK, CACHE = 'calls about the lock', 'xla'
TIMED = ('seconds waited', 'monitor calls', LOCK, 'seconds')
# What the table of docs/operations.md adds up.
GROUPS = {
  'calls about files': tuple(k for k in FILES if not k.startswith('bytes')),
  'bytes of files': tuple(k for k in FILES if k.startswith('bytes')),
  'collectives': ('broadcasts', 'gathers', 'barriers'),
  'bytes of collectives': ('bytes of broadcasts', 'bytes of gathers'),
  'seconds waited': ('seconds waited',),
}
GROWTH = 1.1
FITTED, FAR = (2, 4, 8), (64, 512)
# Fewer than this many more is no growth: one more file, or one line of a log.
SLACK = {
  **{'bytes read': 4096, 'bytes written': 4096},
  **{'bytes of broadcasts': 256, 'bytes of gathers': 256},
}


def write_data(folder):
  """Writes pictures in class folders, and the config that trains on them."""
  import numpy as np
  from PIL import Image

  rng = np.random.default_rng(0)
  for label in range(CLASSES):
    home = folder / 'data' / f'class{label}'
    home.mkdir(parents=True, exist_ok=True)
    for n in range(PER_CLASS):
      image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
      Image.fromarray(image).save(home / f'{n:03d}.png')
  smoke = (ROOT / 'configs' / 'smoke.py').read_text(encoding='utf-8')
  section = f"dict(kind='folder', path={str(folder / 'data')!r})"
  (folder / 'scale.py').write_text(
    smoke.replace('def get_config', 'def get_smoke')
    + '\n\ndef get_config():\n  c = get_smoke()\n'
    f'  c.train_data = {section}\n  c.eval_data = {section}\n  return c\n',
    encoding='utf-8',
  )


def commands(folder):
  """-> {name: words of cdm}, in their order."""
  config = f'--config={folder / "scale.py"}'
  values = [f'--config.{key}={value}' for key, value in OVERRIDES.items()]
  train = ['train', config, f'--workdir={folder / "run"}', *values]
  sample = ['sample', config, f'--workdir={folder / "run"}']
  sample += [f'--num={IMAGES}', f'--out={folder / "samples"}']
  judge = ['evaluate', f'--samples={folder / "samples" / "smoke"}']
  judge += [f'--reference={folder / "data"}', '--metrics=fid', '--few']
  judge += [f'--weights={folder / "weights.pth"}', '--overwrite']
  judge += [f'--out={folder / "row.json"}']
  return {
    'train': [*train, '--config.train.num_steps=4'],
    'restore': [*train, '--config.train.num_steps=8'],
    'sample': sample,
    'continue': sample,
    'judge': judge,
  }


def free_port():
  """-> a port that nobody listens on."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def run(folder, words, processes, out, count_files=True):
  """Runs commands in several processes. -> their counts, one dict for each.

  Args:
    folder: path; only files below it are counted.
    words: list of lists of words of cdm, which run one after the other.
    processes: how many.
    out: path of a folder for the logs and the records of strace.
    count_files: whether strace watches.
  """
  out.mkdir(parents=True)
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': '1',
    'XLA_FLAGS': '--xla_backend_optimization_level=0',
    'JAX_COMPILATION_CACHE_DIR': str(folder / 'xla'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'XDG_CACHE_HOME': str(folder / 'cache'),
    # Else the processes write bytecode, the first of them more than the rest.
    'PYTHONDONTWRITEBYTECODE': '1',
    'CDM_COORDINATOR_ADDRESS': f'127.0.0.1:{free_port()}',
    'CDM_NUM_PROCESSES': str(processes),
  }
  running = []
  for index in range(processes):
    watched = file_calls.command(out / f'calls{index}') if count_files else []
    with open(out / f'log{index}', 'wb') as log:
      running.append(
        subprocess.Popen(
          [*watched, sys.executable, ROOT / 'benchmarks' / 'counted_cdm.py']
          + [out / f'sent{index}.json', folder, json.dumps(words)],
          env=environment | {'CDM_PROCESS_ID': str(index)},
          stdout=log,
          stderr=log,
          start_new_session=True,
        )
      )
  try:
    codes = [process.wait(LIMIT_SECONDS) for process in running]
  except subprocess.TimeoutExpired:
    raise SystemExit(
      f'{processes} processes have not ended after {LIMIT_SECONDS} s; see the '
      f'logs in {out}.'
    ) from None
  finally:
    for process in running:
      # strace and what it watches, which would outlive it.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  if any(codes):
    bad = next(n for n, code in enumerate(codes) if code)
    raise SystemExit(
      f'Process {bad} of {processes} ended with {codes[bad]}; see '
      f'{out / f"log{bad}"}.'
    )
  return [counts(folder, out, index, count_files) for index in range(processes)]


def counts(folder, out, index, count_files):
  """-> {kind: number} of one process, and its files by place."""
  sent = out / f'sent{index}.json'
  found = collections.Counter(json.loads(sent.read_text(encoding='utf-8')))
  if count_files:
    places = file_calls.count(out / f'calls{index}', folder)
    found['places'] = merged(places)
    for place, kinds in found['places'].items():
      for kind, number in kinds.items():
        found[LOCK if place == LOCK else kind] += number
  return found


def merged(places):
  """-> {place: {kind: number}} with the lock and the cache as one place each.

  Args:
    places: what `file_calls.count` returns.
  """
  found = collections.defaultdict(collections.Counter)
  for place, kinds in places.items():
    name = LOCK if '.cdm-lock' in place else place
    found[CACHE if place.startswith(f'{CACHE}/') else name].update(kinds)
  return found


def measure(home, processes):
  """Yields {command, processes, counts of each process} of every command."""
  folder = home / f'p{processes}'
  folder.mkdir(parents=True, exist_ok=True)
  write_data(folder)
  (folder / 'weights.pth').write_bytes(b'weights')
  for name, words in commands(folder).items():
    if name == 'continue':
      # Half of the images are gone, as after a kill.
      for n in range(0, IMAGES, 2):
        next((folder / 'samples').rglob(f'{n:06d}.png')).unlink()
    with tempfile.TemporaryDirectory(dir=home) as records:
      found = run(folder, [words], processes, pathlib.Path(records, 'out'))
    yield {'command': name, 'processes': processes, 'counts': found}


def busiest(row, kind):
  """-> the largest count of a kind among the processes of a row."""
  return max(each.get(kind, 0) for each in row['counts'])


def line(points):
  """-> (c0, c1) of the line c0 + c1 P with the least squares of errors.

  A count that falls with the number of processes, as work that they share does,
  keeps its value at the largest: c1 is 0 then.

  Args:
    points: {P: count}.
  """
  number = len(points)
  mean_p, mean = sum(points) / number, sum(points.values()) / number
  spread = sum((p - mean_p) ** 2 for p in points)
  slope = sum((p - mean_p) * (c - mean) for p, c in points.items()) / spread
  if slope <= 0:
    return float(points[max(points)]), 0.0
  return mean - slope * mean_p, slope


def grows(points, kind):
  """-> whether the busiest process has more to do among more processes.

  Args:
    points: {P: count}.
    kind: what was counted.
  """
  least, most = points[min(points)], points[max(points)]
  return most > GROWTH * least and most - least > SLACK.get(kind, 1)


def smallest(rows):
  """-> rows with one row for each command and number of processes.

  Args:
    rows: see `measure`; of rows that repeat another, the smallest count of the
      busiest process is kept.
  """
  repeats = collections.defaultdict(list)
  for row in rows:
    repeats[row['command'], row['processes']].append(row)
  found = []
  for (command, processes), of in repeats.items():
    kinds = {k for row in of for each in row['counts'] for k in each}
    counts = {
      kind: min(busiest(row, kind) for row in of) for kind in kinds - {'places'}
    }
    places = {place for r in of for c in r['counts'] for place in c['places']}
    counts['places'] = {
      place: {
        kind: min(busiest_at(row, place, kind) for row in of) for kind in FILES
      }
      for place in places
    }
    found.append(
      {'command': command, 'processes': processes, 'counts': [counts]}
    )
  return found


def busiest_at(row, place, kind):
  """-> the largest count of a kind of calls about the files of a place."""
  return max(
    each['places'].get(place, {}).get(kind, 0) for each in row['counts']
  )


def grouped(rows):
  """-> rows with the sums of `GROUPS` in the place of the single counts."""
  return [
    row
    | {
      'counts': [
        {
          name: sum(each.get(kind, 0) for kind in kinds)
          for name, kinds in GROUPS.items()
        }
        for each in row['counts']
      ]
    }
    for row in rows
  ]


def table(rows, kinds=(*FILES, *SENT, *TIMED)):
  """-> lines of Markdown: what was measured, and what follows from it.

  Args:
    rows: see `measure`.
    kinds: what was counted; there is a line for each that is not 0.
  """
  by_command = {}
  for row in rows:
    by_command.setdefault(row['command'], {})[row['processes']] = row
  far = ' | '.join(f'{p} (line)' for p in FAR)
  near = sorted({row['processes'] for row in rows})
  lines = [
    f'| command | busiest process | {" | ".join(map(str, near))} | grows '
    f'| c0 + c1 P | {far} |',
    '|---|---|' + '---:|' * len(near) + '---|---|' + '---:|' * len(FAR),
  ]
  for command, of in by_command.items():
    for kind in kinds:
      points = {p: busiest(row, kind) for p, row in sorted(of.items())}
      if not any(points.values()):
        continue
      cells = [number(points[p]) if p in points else '' for p in near]
      fitted = {p: c for p, c in points.items() if p in FITTED}
      text, ahead = ('', ''), [''] * len(FAR)
      if len(fitted) > 1 and kind not in TIMED:
        c0, c1 = line(fitted)
        text = (
          'yes' if grows(fitted, kind) else 'no',
          f'{number(c0)} + {number(c1)} P',
        )
        ahead = [number(c0 + c1 * p) for p in FAR]
      lines.append(
        f'| {command} | {kind} | {" | ".join(cells)} | {" | ".join(text)} '
        f'| {" | ".join(ahead)} |'
      )
  return lines


def number(value):
  """-> a count as text, without decimals that nobody needs."""
  if value == int(value) or abs(value) >= 100:
    return f'{value:,.0f}'
  return f'{value:.3g}'


def growing(rows):
  """-> [(command, kind, {P: count})] of what grows, the worst first."""
  found = []
  for command in dict.fromkeys(row['command'] for row in rows):
    of = {r['processes']: r for r in rows if r['command'] == command}
    for kind in (*FILES, *SENT):
      points = {p: busiest(r, kind) for p, r in of.items() if p > 1}
      if len(points) > 1 and grows(points, kind):
        found.append((command, kind, points))
  return sorted(found, key=lambda each: -max(each[2].values()))


def growing_places(rows):
  """-> [(place, kind, {P: count})] of the files whose calls grow.

  Args:
    rows: of one command, see `measure`.
  """
  found = []
  places = {place for r in rows for c in r['counts'] for place in c['places']}
  for place in sorted(places - {LOCK}):
    for kind in FILES:
      points = {
        row['processes']: busiest_at(row, place, kind)
        for row in rows
        if row['processes'] > 1
      }
      if len(points) > 1 and grows(points, kind):
        found.append((place, kind, points))
  return found


def read(path):
  """-> the rows on record."""
  if not path.exists():
    return []
  return [
    json.loads(text) for text in path.read_text(encoding='utf-8').splitlines()
  ]


def count(home, processes, repeat):
  """Counts all commands once, unless that is on record.

  Args:
    home: path of the folder of all.
    processes: how many.
    repeat: how often they have been counted before.
  """
  path, folder = home / COUNTS, home / f'p{processes}'
  done = [row for row in read(path) if row['processes'] == processes]
  if len(done) >= (repeat + 1) * len(commands(home)):
    return
  if len(done) > repeat * len(commands(home)):
    sys.exit(
      f'{folder} is half done; remove the last lines of {processes} processes '
      f'from {path}, down to those of whole repeats, and start again.'
    )
  shutil.rmtree(folder, ignore_errors=True)
  for row in measure(home, processes):
    with open(path, 'a', encoding='utf-8') as file:
      file.write(json.dumps(row) + '\n')
    print(f'{processes} processes: {row["command"]}', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--processes', default='1,2,4,8')
  parser.add_argument('--repeats', type=int, default=1)
  parser.add_argument('--table', action='store_true', help='run nothing')
  parser.add_argument('--docs', action='store_true', help='a shorter table')
  args = parser.parse_args()
  home = args.folder.absolute()
  path = home / COUNTS
  if not args.table and not args.docs:
    if reason := file_calls.unavailable():
      sys.exit(f'{reason[0].upper()}{reason[1:]}.')
    for processes in map(int, args.processes.split(',')):
      for repeat in range(args.repeats):
        count(home, processes, repeat)
  rows = smallest(read(path))
  if args.docs:
    print('\n'.join(table(grouped(rows), tuple(GROUPS))))
    return
  print('\n'.join(table(rows)))
  for command, kind, points in growing(rows):
    print(f'grows: {command}, {kind}: {points}')
  for command in dict.fromkeys(row['command'] for row in rows):
    of = [row for row in rows if row['command'] == command]
    for place, kind, points in growing_places(of):
      print(f'where: {command}, {place}, {kind}: {points}')


if __name__ == '__main__':
  main()
