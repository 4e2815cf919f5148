"""What judging costs beside its network: memory, moments, the last step.

  python benchmarks/judging.py memory             # peak memory over N
  python benchmarks/judging.py moments            # CPU time per image of sums
  python benchmarks/judging.py fid                # the last step, D = 2048
  python benchmarks/judging.py pr --num=5000      # precision and recall, N by N

A network that costs nothing stands for Inception: features are random numbers
of its sizes. Every measurement is a process of its own.
"""

import argparse
import multiprocessing
import pathlib
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH = 64


class Cheap:
  """Stands for the network: random features, another row for each image."""

  sizes = {'fid': 2048, 'sfid': 2023}

  def __init__(self, params, *, batch_size):
    from cdm.models.inception import Features

    self.batch_size = batch_size
    draw = np.random.default_rng(0)
    self._pool = np.maximum(draw.normal(size=(4096, 2048)), 0).astype('f4')
    self._kind = Features

  def start(self, images):
    return images

  def finish(self, images):
    first = int(images[0, 0, 0, 0]) * 16
    pool = np.roll(self._pool, first, axis=1)[first : first + len(images)]
    return self._kind(pool, pool[:, :2023], pool[:, :1008], pool[:, :1008])


def gathered(count, metrics):
  """-> seconds of CPU that gathering `count` images took."""
  from cdm.evaluation import extract_features, image_source

  extract_features.Extractor = Cheap
  extract_features.inception.read = lambda path: None

  def batches(first, size):
    for start in range(first * size, count, size):
      numbers = np.arange(start, min(start + size, count))
      images = np.full((len(numbers), 8, 8, 3), start // size % 200, np.uint8)
      yield numbers, images

  with tempfile.TemporaryDirectory() as folder:
    weights = pathlib.Path(folder) / 'weights'
    weights.write_bytes(b'none')
    gatherer = extract_features.Gatherer(weights, batch_size=BATCH, keep=folder)
    source = image_source.Source(count, batches, {'count': count}, {})
    start = time.process_time()
    gatherer(source, metrics, 'gathering')
    took = time.process_time() - start
    gatherer.forget()
  return took


def fid_of_gaussians(samples):
  """-> seconds of CPU of FID's last step, N = `samples` of each set."""
  from cdm.evaluation.metrics import fid

  draw = np.random.default_rng(0)
  found = []
  for _ in range(2):
    hidden = draw.normal(size=(samples, 100)) @ draw.normal(size=(100, 2048))
    x = np.maximum(hidden / 10 + draw.normal(size=hidden.shape) / 20, 0)
    found.append(fid.moments(x))
  a, b = found
  given = (a.mean, a.covariance, b.mean, b.covariance)
  start = time.process_time()
  fid.fid(*given)
  return time.process_time() - start


def precision_and_recall(num):
  """-> seconds, and of CPU, of precision and recall, num by num images."""
  from cdm.evaluation.metrics import precision_recall

  draw = np.random.default_rng(0)
  real, made = (draw.random((num, 2048), np.float32) for _ in range(2))
  start, began = time.perf_counter(), time.process_time()
  print(precision_recall.precision_recall(real, made))
  return time.perf_counter() - start, time.process_time() - began


def alone(function, *args):
  """-> (what it returned, peak MB) of a call in a process of its own."""
  context = multiprocessing.get_context('spawn')
  with context.Pool(1) as pool:
    return pool.apply(_measured, (function, *args))


def _measured(function, *args):
  from cdm.reporting import session_log

  found = function(*args)
  return found, session_log.peak_host_bytes() / 2**20


def memory(args):
  for metrics in (('fid', 'sfid', 'is'), ('fid', 'kid', 'pr')):
    counts, peaks = args.counts, []
    for count in counts:
      _, peak = alone(gathered, count, metrics)
      peaks.append(peak)
      print(f'{",".join(metrics)} {count:,} images: {peak:,.0f} MB')
    slope = np.polyfit(counts, peaks, 1)[0]
    print(f'{",".join(metrics)}: {1024 * slope:.2f} kB per image')


def moments(args):
  for metrics in (('fid',), ('fid', 'sfid', 'is')):
    took, _ = alone(gathered, args.counts[0], metrics)
    print(
      f'{",".join(metrics)}: {1e3 * took / args.counts[0]:.3f} ms per image'
    )


def last_step(args):
  for samples in (5000, 1000):
    took, _ = alone(fid_of_gaussians, samples)
    print(f'FID, 2,048 features, {samples:,} images: {took:.2f} s of CPU')


def neighbours(args):
  (took, of_cpu), peak = alone(precision_and_recall, args.num)
  rate = 3 * 2 * args.num**2 * 2048 / took / 1e9
  print(
    f'precision and recall, {args.num:,} by {args.num:,} of 2,048: '
    f'{took:.1f} s, {of_cpu:.1f} s of CPU, {rate:.0f} GFLOP/s, {peak:,.0f} MB'
  )


PARTS = {
  'memory': memory,
  'moments': moments,
  'fid': last_step,
  'pr': neighbours,
}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('part', choices=PARTS)
  parser.add_argument(
    '--counts',
    type=lambda text: [int(n) for n in text.split(',')],
    default=[5000, 10000, 20000],
    help='N of memory; of moments the first',
  )
  parser.add_argument('--num', type=int, default=5000, help='N of pr')
  args = parser.parse_args()
  PARTS[args.part](args)


if __name__ == '__main__':
  main()
