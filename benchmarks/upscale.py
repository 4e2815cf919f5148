"""Times enlarging a photograph 4x beside PyTorch's networks, in turn.

  python benchmarks/upscale.py --workdir=MODEL [--size=816x612] [--rounds=3]
      [--steps=1,4] [--networks=srvgg,rrdb] [--tile=256]
      [--torch_python=PYTHON] [--out=FILE.jsonl] [--command]

MODEL is a work directory of photo_faithful or photo_detailed, or a file that
`cdm export` made of it. A photo_detailed is timed as the mean alone, and with
each number of --steps. The peers are the shapes of Real-ESRGAN's networks with
random parameters (`upscale_networks.py`), evaluated in tiles without margins,
which a program that shows no seams cannot leave out. Everything takes turns,
round by round, each in a process of its own on the same cores; a table shows
the median, the spread, memory and the ratio to the first row. Programs are
compiled before the first round that counts.

--command also times `cdm upscale FILE` as a user types it: with an empty cache
of compiled programs, and again.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import step_process  # noqa: E402
from cdm.reporting import jsonl  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


def main(argv=None) -> int:
  args = _arguments(argv)
  width, height = args.size
  rows, failed = [], False
  with contextlib.ExitStack() as stack:
    workers = {}
    for name, script, job, python in _programs(args):
      try:
        worker = step_process.Worker(HERE / script, job, python=python)
      except step_process.Failed as error:
        print(f'{name}: {error}', file=sys.stderr)
        failed = True
        continue
      stack.callback(worker.close)
      workers[name] = worker
    spent = {name: [] for name in workers}
    for number in range(1 + args.rounds):  # The first one compiles.
      for name, worker in workers.items():
        seconds = worker.ask(do='run', height=height, width=width)['seconds']
        if number:
          spent[name].append(seconds)
    for name, worker in workers.items():
      rows.append(
        {
          'program': name,
          'size': f'{width}x{height}',
          'seconds': spent[name],
          'peak_bytes': worker.ask(do='peak')['peak_bytes'],
          'cores': os.cpu_count(),
          **worker.ready,
        }
      )
  if args.command:
    rows += _commands(args)
  print(table(rows), end='')
  if args.out:
    jsonl.append(args.out, rows)
  return int(failed)


def _programs(args):
  """Yields (name, script, job, interpreter) of what is timed."""
  ours = {'workdir': str(args.workdir), 'detail': None, 'steps': None}
  if args.steps:
    ours['detail'] = 0.0
  yield 'cdm, the mean', 'upscale_of_cdm.py', ours, sys.executable
  for steps in args.steps:
    job = ours | {'detail': 1.0, 'steps': steps}
    name = f'cdm, {steps} step{"s" * (steps > 1)}'
    yield name, 'upscale_of_cdm.py', job, sys.executable
  for network in args.networks:
    job = {'network': network, 'tile': args.tile}
    yield f'PyTorch, {network}', 'upscale_of_torch.py', job, args.torch_python


def _commands(args):
  """Times the command: the first time on a machine, and again."""
  import numpy as np
  from PIL import Image

  rows = []
  with tempfile.TemporaryDirectory(prefix='cdm-upscale-') as folder:
    home = pathlib.Path(folder)
    width, height = args.size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    Image.fromarray(noise.astype(np.uint8)).save(home / 'photo.png')
    environment = {
      **os.environ,
      'XDG_CACHE_HOME': str(home / 'cache'),
      'PYTHONPATH': str(ROOT),
    }
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    for name in ('the first time', 'again'):
      began = time.perf_counter()
      subprocess.run(
        [
          sys.executable,
          *('-m', 'cdm', 'upscale', f'--workdir={args.workdir}'),
          str(home / 'photo.png'),
          *(f'--out={home / "large.png"}', '--overwrite', '--scale=4'),
          # Another seed, or the second one would find its result there.
          f'--seed={len(rows)}',
        ],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
      )
      rows.append(
        {
          'program': f'cdm upscale, {name}',
          'size': f'{width}x{height}',
          'seconds': [time.perf_counter() - began],
        }
      )
  return rows


def table(rows) -> str:
  """Returns a table of rows, with ratios to the first one."""
  lines = [
    '| program | parameters | seconds | spread | memory, MB | ratio |',
    '|---|---|---|---|---|---|',
  ]
  first = statistics.median(rows[0]['seconds'])
  for row in rows:
    seconds = row['seconds']
    middle = statistics.median(seconds)
    spread = f'{min(seconds):.2f} to {max(seconds):.2f}'
    count, peak = row.get('parameters'), row.get('peak_bytes')
    cells = [
      row['program'],
      '' if count is None else f'{count:,}',
      f'{middle:.2f}',
      spread,
      '' if peak is None else f'{peak / 1e6:,.0f}',
      f'{middle / first:.2f}',
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def _arguments(argv):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--workdir', type=pathlib.Path, required=True)
  add('--size', type=_size, default=(816, 612), help='WIDTHxHEIGHT, low-res')
  add('--rounds', type=int, default=3)
  add('--steps', type=_numbers, default=(), help='of a photo_detailed')
  add('--networks', type=_names, default=('srvgg', 'rrdb'))
  add('--tile', type=int, default=256, help='of the peers, low-res pixels')
  add('--torch_python', default=sys.executable, metavar='PYTHON')
  add('--out', type=pathlib.Path, metavar='FILE.jsonl')
  add('--command', action='store_true')
  return parser.parse_args(argv)


def _size(text):
  width, _, height = text.partition('x')
  return int(width), int(height)


def _numbers(text):
  return tuple(int(part) for part in text.split(','))


def _names(text):
  return tuple(filter(None, text.split(',')))


if __name__ == '__main__':
  sys.exit(main())
