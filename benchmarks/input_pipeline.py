"""How many images a core prepares per second, against a plain Pillow loop.

  python benchmarks/input_pipeline.py [--size=64] [--count=256] [--workers=0]

Images are JPEGs of 500 x 375 pixels, as ImageNet's mostly are, cut from the
embedded photographs. The peer decodes, crops and resizes with Pillow's BOX
filter and nothing else: no shuffle, no position, no exact area mean. Rates are
per second of CPU time, but for worker processes, whose are per wall second.
"""

import argparse
import io
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from cdm.data import photographs, pipeline, prepare, sources


def write_jpegs(folder, count):
  rng = np.random.default_rng(0)
  names = ('astronaut', 'chelsea', 'coffee', 'ihc', 'rocket')
  for i in range(count):
    pixels = photographs.region(names[i % len(names)], 'train', 1)
    top, left = rng.integers(np.array(pixels.shape[:2]) - (220, 200))
    image = Image.fromarray(pixels[top : top + 225, left : left + 300])
    image = image.resize((500, 375), Image.Resampling.BICUBIC)
    image.save(folder / f'{i:05d}.jpg', quality=92)


def pillow_loop(folder, size):
  for path in sorted(folder.glob('*.jpg')):
    image = Image.open(io.BytesIO(path.read_bytes())).convert('RGB')
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    np.array(image.resize((size, size), Image.Resampling.BOX, box=box))


def through_pipeline(source, size, workers):
  batch_size = 32
  iterator = pipeline.make_iterator(
    source,
    image_size=size,
    batch_size=batch_size,
    seed=0,
    flip=True,
    worker_count=workers,
  )
  next(iterator)  # starts the workers
  clock = time.perf_counter if workers else time.process_time
  start, count = clock(), 0
  while count < len(source):
    count += len(next(iterator)['image'])
  rate = count / (clock() - start)
  iterator.close()
  return rate


def rates(folder, args):
  """Yields (what, images per second)."""
  files = folder / 'files'
  files.mkdir()
  write_jpegs(files, args.count)
  pillow_loop(files, args.size)  # warms the page cache
  start = time.process_time()
  pillow_loop(files, args.size)
  yield 'Pillow loop', args.count / (time.process_time() - start)
  source = sources.Folder(files)
  yield 'folder', through_pipeline(source, args.size, 0)
  prepare.prepare(source, size=args.size, out=folder / 'prepared')
  prepared = sources.ArrayRecords(folder / 'prepared')
  yield 'cdm prepare', through_pipeline(prepared, args.size, 0)
  if args.workers:
    rate = through_pipeline(source, args.size, args.workers)
    yield f'folder, {args.workers} workers (wall)', rate


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--count', type=int, default=256)
  parser.add_argument('--workers', type=int, default=0)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    peer = None
    for what, rate in rates(pathlib.Path(folder), args):
      peer = peer or rate
      print(f'{what:24} {rate:9.0f} images/s  {rate / peer:6.2f} x Pillow')


if __name__ == '__main__':
  main()
