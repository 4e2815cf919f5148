"""Measures how fast picture files are written band by band, in which memory.

  python benchmarks/photograph_files.py

Each kind is written by a process of its own, so that its peak is its own. The
picture is drawn: smooth shades, edges, and noise as a camera's.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
_BAND = 64


def main() -> None:
  """Prints a table as Markdown."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--width', type=int, default=4000)
  parser.add_argument('--height', type=int, default=3000)
  parser.add_argument('--bits', type=int, default=8)
  parser.add_argument('--compression', type=int, default=None)
  parser.add_argument('--kind', help='one suffix, in this process')
  arguments = parser.parse_args()
  if arguments.kind:
    print(_measure(arguments))
    return
  print('| kind | s | MB/s | file, MB | share | peak above start, MB |')
  print('|---|---|---|---|---|---|')
  for kind in ('.png', '.jpg', '.tif', '.bmp', '.webp', '.avif'):
    done = subprocess.run(
      [sys.executable, __file__, *sys.argv[1:], f'--kind={kind}'],
      capture_output=True,
      text=True,
      check=True,
    )
    print(done.stdout.strip(), flush=True)


def _measure(arguments):
  """Returns the row of a kind."""
  sys.path.insert(0, str(ROOT))
  from cdm.data.photographs import output_kinds, picture_writer

  layout = output_kinds.Layout(
    arguments.width, arguments.height, 3, arguments.bits
  )
  options = picture_writer.DEFAULTS
  if arguments.compression is not None:
    options = options._replace(compression=arguments.compression)
  # The drawing of a band is not measured; a few bands are drawn beforehand.
  bands = [_band(layout, top) for top in range(0, 8 * _BAND, _BAND)]
  before = _memory('VmRSS')
  # Linux begins to count the peak anew.
  pathlib.Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f'x{arguments.kind}'
    start = time.perf_counter()
    with picture_writer.open_writer(path, layout, options=options) as writer:
      for i, top in enumerate(range(0, layout.height, _BAND)):
        rows = min(_BAND, layout.height - top)
        writer.write(bands[i % len(bands)][:rows])
    seconds = time.perf_counter() - start
    size = os.path.getsize(path)
  peak = _memory('VmHWM') - before
  raw = layout.raw_bytes
  return (
    f'| {arguments.kind} | {seconds:.2f} | {raw / seconds / 1e6:.0f} | '
    f'{size / 1e6:.1f} | {size / raw:.2f} | {peak / 1000:.0f} |'
  )


def _memory(name):
  """Returns kB of this process as Linux tells them."""
  status = pathlib.Path('/proc/self/status').read_text(encoding='ascii')
  return int(status.split(f'{name}:')[1].split()[0])


def _band(layout, top):
  y, x = np.mgrid[top : top + _BAND, : layout.width].astype(np.float32)
  rng = np.random.default_rng(top)
  shades = [np.sin(x / (90 + 7 * k)) + np.cos(y / (70 + k)) for k in range(3)]
  edges = (np.sin(x / 31) * np.cos(y / 23) > 0.6)[..., None]
  values = 0.5 + 0.15 * np.stack(shades, axis=-1) + 0.15 * edges
  values += rng.normal(scale=0.006, size=values.shape)
  white = 2**layout.bits - 1
  values = np.clip(values, 0, 1) * white + 0.5
  return values.astype(np.uint16 if layout.bits == 16 else np.uint8)


if __name__ == '__main__':
  main()
