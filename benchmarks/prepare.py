"""Measures `cdm prepare` on generated pictures: images per second, memory.

  python benchmarks/prepare.py [--counts=20000,200000] [--side=64]
      [--payloads=raw,png] [--dir=DIR] [other options of cdm prepare]

The pictures are PNG files in a zip, as EDM's tool writes them, with their
labels in dataset.json. Every count is prepared by a process of its own, whose
peak memory is printed: it must not grow with the count. The CPU time counts
where other programs keep the machine busy.
"""

import argparse
import io
import json
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
# It runs the command and says the peak memory of its own process, in KiB.
COMMAND = """
import resource, sys
from cdm.cli import main
code = main.main(sys.argv[1:])
print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def main():
  """Measures every count and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--counts', default='20000,200000')
  parser.add_argument('--payloads', default='raw,png')
  parser.add_argument('--side', type=int, default=64)
  parser.add_argument('--dir', default=None, help='for the data; default: temp')
  args, options = parser.parse_known_args()
  folder = pathlib.Path(tempfile.mkdtemp(dir=args.dir))
  print(
    '| images | payload | seconds | images/s | CPU ms/image | peak MB | GB |'
  )
  print(f'{"|---" * 7}|')
  try:
    for count in map(int, args.counts.split(',')):
      source = write_zip(folder / f'{count}.zip', count, args.side)
      for payload in args.payloads.split(','):
        measure(source, count, args.side, payload, options)
  finally:
    shutil.rmtree(folder)


def pictures(side):
  """-> a thousand PNG files of smooth noise, each another."""
  rng = np.random.default_rng(0)
  made = []
  for _ in range(1000):
    small = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(small).resize((side, side), Image.BICUBIC)
    image.save(file, 'PNG', compress_level=1)
    made.append(file.getvalue())
  return made


def write_zip(path, count, side):
  """Writes a zip of so many pictures, which begin again after a thousand."""
  labels, made = [], pictures(side)
  with zipfile.ZipFile(path, 'w') as file:
    for i in range(count):
      name = f'{i // 1000:05d}/img{i:08d}.png'
      file.writestr(name, made[i % len(made)])
      labels.append([name, i % 10])
    file.writestr('dataset.json', json.dumps({'labels': labels}))
  return path


def measure(source, count, side, payload, options):
  """Prepares one zip and prints a row of the table."""
  out = source.with_name(f'{source.stem}-{payload}')
  words = ['prepare', f'--source={source}', f'--size={side}', f'--out={out}']
  words += [f'--payload={payload}', *options]
  began, used = time.monotonic(), cpu_seconds()
  done = subprocess.run(
    [sys.executable, '-c', COMMAND, *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  seconds, cpu = time.monotonic() - began, cpu_seconds() - used
  if done.returncode:
    sys.exit(done.stderr)
  peak = int(re.search(r'peak (\d+)', done.stdout)[1]) * 1024 / 1e6
  size = sum(p.stat().st_size for p in out.glob('*.array_record')) / 1e9
  print(
    f'| {count:,} | {payload} | {seconds:.0f} | {count / seconds:,.0f} '
    f'| {1000 * cpu / count:.2f} | {peak:,.0f} | {size:.2f} |',
    flush=True,
  )
  shutil.rmtree(out)


def cpu_seconds():
  """-> CPU time of all processes that this one has started and that ended."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


if __name__ == '__main__':
  main()
