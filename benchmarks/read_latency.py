"""Images per second from storage that answers late, by reads at once.

  python benchmarks/read_latency.py [--latency_ms=20] [--threads 1 2 16 128]
      [--workers=0] [--batch_size=64]

The source is made up: each record takes the latency, as a read from object
storage does, and no CPU time. `pipeline.read_threads` of a config is what
changes from line to line; 2 is what cdm had before it was an option.
"""

import argparse
import contextlib
import time

import numpy as np

from cdm.data import pipeline


class Late:
  """A million images, each of which comes after a pause."""

  num_classes = 0
  class_names = ()

  def __init__(self, seconds):
    self.seconds = seconds

  def __len__(self):
    return 1_000_000

  def __getitem__(self, i):
    time.sleep(self.seconds)
    return {
      'image': np.zeros((64, 64, 3), np.uint8),
      'label': np.int32(i % 1000),
      'short_side': np.int32(64),
    }


def rate(source, args, threads):
  """-> images per second, once the first batch is there."""
  batches = pipeline.make_iterator(
    source,
    pipeline.PipelineOptions(
      image_size=64,
      worker_count=args.workers,
      read_threads=threads,
      read_buffer=args.buffer,
    ),
    batch_size=args.batch_size,
    seed=0,
  )
  with contextlib.closing(batches):
    next(batches)
    start, count = time.perf_counter(), 0
    # What is buffered by then must not count.
    while count < max(2 * args.buffer, args.seconds * threads / source.seconds):
      count += len(next(batches)['label'])
    return count / (time.perf_counter() - start)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--latency_ms', type=float, default=20)
  parser.add_argument('--threads', type=int, nargs='+', default=[2, 16, 128])
  parser.add_argument('--buffer', type=int, default=500)
  parser.add_argument('--workers', type=int, default=0)
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--seconds', type=float, default=3)
  args = parser.parse_args()
  source = Late(args.latency_ms / 1000)
  for threads in args.threads:
    found = rate(source, args, threads)
    ideal = threads / source.seconds
    print(
      f'{threads:4} reads at once: {found:7.0f} images/s, {found / ideal:.0%} '
      f'of {threads} / {args.latency_ms:g} ms',
      flush=True,
    )


if __name__ == '__main__':
  main()
