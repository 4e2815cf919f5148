"""How many images a core prepares per second, against other input pipelines.

  pip install '.[jpeg]' tensorflow torch  # whichever is missing is left out
  python benchmarks/input_pipeline.py [--sizes 64 256] [--count=320] \\
      [--rounds=7] [--workers=2]

Everyone reads the same JPEGs (500 x 375 pixels at quality 90, as ImageNet's
mostly are, cut from the embedded photographs), in random order, takes the
largest centre square, shrinks it by area, flips half of the images and makes
uint8 batches of 32:

  ours      `pipeline.make_iterator` on the folder, where the extra `jpeg` is
            installed also without it, and on what `prepare` wrote
  tf.data   decode_and_crop_jpeg, tf.image.resize(method='area'), rounded
  PyTorch   DataLoader over Pillow, reduced with its BOX filter
  Pillow    a bare loop: decode, crop, BOX; no order, no flip, no batch

First in one process held to one core, per second of CPU time, all its threads
together. Then with worker processes (tf.data: threads), per second
of the clock and without the time that they take to start. Rounds take turns, so
what else the machine does hits all alike; the ratios are those of one round.
"""

import argparse
import contextlib
import functools
import io
import itertools
import os
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from cdm.data import (
  array_record,
  fast_jpeg,
  pipeline,
  prepare,
  sample_photos,
)
from cdm.data import folder as sources

BATCH_SIZE = 32
WITHOUT_JPEG = 'ours, folder, no jpeg'
EPOCHS = 8  # that the workers read in one round
# Our records are the images this many times over: shuffling a few hundred takes
# longer per record than shuffling a million, and nobody trains on so few.
REPEATS = 200


class Repeated:
  """A source of as many records as a real data set has."""

  def __init__(self, source):
    self._source = source

  def __len__(self):
    return len(self._source) * REPEATS

  def __getitem__(self, i):
    return self._source[i % len(self._source)]


def write_jpegs(folder, count):
  folder.mkdir()
  rng = np.random.default_rng(0)
  names = ('astronaut', 'chelsea', 'coffee', 'ihc', 'rocket')
  for i in range(count):
    pixels = sample_photos.region(names[i % len(names)], 'train', 1)
    top, left = rng.integers(np.array(pixels.shape[:2]) - (220, 200))
    image = Image.fromarray(pixels[top : top + 225, left : left + 300])
    image = image.resize((500, 375), Image.Resampling.BICUBIC)
    image.save(folder / f'{i:05d}.jpg', quality=90)
  return sorted(folder.iterdir())


def boxed(path, size):
  """What every plain Pillow pipeline does; Image.draft is off by default."""
  image = Image.open(io.BytesIO(path.read_bytes())).convert('RGB')
  side = min(image.size)
  left, top = (image.width - side) // 2, (image.height - side) // 2
  box = (left, top, left + side, top + side)
  return np.array(image.resize((size, size), Image.Resampling.BOX, box=box))


# An epoch: (workers, epochs) -> iterator over batches. Making one is cheap and
# starts nothing that outlives it.


def pillow(files, size):
  def epoch(workers, epochs):
    del workers
    for path in files * epochs:
      yield boxed(path, size)[None]

  return epoch


def ours(source, size):
  def epoch(workers, epochs):
    batches = pipeline.make_iterator(
      source,
      pipeline.PipelineOptions(
        image_size=size, repeat=False, flip=True, worker_count=workers
      ),
      batch_size=BATCH_SIZE,
      seed=0,
    )
    # Up to the end of the data, so that nothing is read ahead unseen.
    state = batches.get_state()
    state['position'] = len(source) - len(source) // REPEATS * epochs
    batches.set_state(state)
    with contextlib.closing(batches):
      for batch in batches:
        yield batch['image']

  return epoch


def by_pillow(epoch):
  """The same epoch as if the extra `jpeg` was not installed; 0 workers."""

  def plain(workers, epochs):
    assert not workers, 'worker processes import it anew'
    installed, fast_jpeg.simplejpeg = fast_jpeg.simplejpeg, None
    try:
      yield from epoch(workers, epochs)
    finally:
      fast_jpeg.simplejpeg = installed

  return plain


def tensorflow(files, size):
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import tensorflow as tf

  def read(path):
    data = tf.io.read_file(path)
    shape = tf.io.extract_jpeg_shape(data)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    window = tf.stack([top, left, side, side])
    image = tf.io.decode_and_crop_jpeg(data, window, channels=3)
    image = tf.image.resize(image[None], (size, size), method='area')[0]
    image = tf.image.random_flip_left_right(image)
    return tf.cast(tf.round(image), tf.uint8)

  @functools.cache
  def dataset(threads, epochs):
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    paths = tf.data.Dataset.from_tensor_slices([str(path) for path in files])
    images = (
      paths.shuffle(len(files))
      .repeat(epochs)
      .map(read, num_parallel_calls=threads)
    )
    batches = images.batch(BATCH_SIZE, drop_remainder=True).prefetch(2)
    return batches.with_options(options)

  next(iter(dataset(1, 1)))  # traced before the clock runs
  return lambda workers, epochs: dataset(
    max(1, workers), epochs
  ).as_numpy_iterator()


class Boxed:
  """A PyTorch data set; here, so that worker processes can import it."""

  def __init__(self, files, size):
    self.files, self.size = files, size

  def __len__(self):
    return len(self.files)

  def __getitem__(self, i):
    import torch

    image = boxed(self.files[i], self.size)
    if torch.rand(()) < 0.5:
      image = image[:, ::-1].copy()
    return torch.from_numpy(image)


def pytorch(files, size):
  import torch

  torch.set_num_threads(1)

  def epoch(workers, epochs):
    # Spawned: forking a process that has threads may hang.
    return iter(
      torch.utils.data.DataLoader(
        Boxed(files * epochs, size),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        multiprocessing_context='spawn' if workers else None,
      )
    )

  return epoch


@contextlib.contextmanager
def one_core():
  """Where the system can: threads on two halves of a core slow each other."""
  if not hasattr(os, 'sched_setaffinity'):
    yield
    return
  cores = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(cores)})  # threads started from now on, too
  try:
    yield
  finally:
    os.sched_setaffinity(0, cores)


def per_core(epoch):
  """Images per second of this process's CPU time, over a whole epoch."""
  start = time.process_time()
  count = sum(len(images) for images in epoch(0, 1))
  return count / (time.process_time() - start)


def per_clock(epoch, workers):
  """Images per second of the clock, once every worker has delivered."""
  batches = epoch(workers, EPOCHS)
  for _ in range(2 * workers):
    next(batches)
  start, count = time.perf_counter(), 0
  for images in batches:
    count += len(images)
    end = time.perf_counter()  # stopping the workers comes after the last
  return count / (end - start)


def compare(title, contenders, measure, rounds):
  """Measures in turns and prints rates, then ratios ours / peer by round."""
  rates = {name: [] for name in contenders}
  for i in range(-1, rounds):  # the first is not counted: files, imports
    names = list(contenders)
    for name in names if i % 2 else reversed(names):
      rate = measure(contenders[name])
      if i >= 0:
        rates[name].append(rate)
  print(f'\n{title}')
  for name, found in rates.items():
    print(f'  {name:24} {np.median(found):8.0f} images/s')
  mine = [name for name in rates if name.startswith('ours')]
  for name, peer in itertools.product(mine, rates):
    if peer not in mine:
      ratios = np.divide(rates[name], rates[peer])
      low, middle, high = np.quantile(ratios, (0, 0.5, 1))
      print(
        f'  {f"{name} / {peer}":36} {middle:6.2f}  ({low:.2f} to {high:.2f})'
      )


def contenders_of(files, folder, size):
  """Name -> epoch; a peer that is not installed is named and left out."""
  source = sources.Folder(files[0].parent)
  prepare.prepare(source, size=size, out=folder / f'prepared{size}')
  prepared = array_record.ArrayRecords(folder / f'prepared{size}')
  found = {
    'ours, folder': ours(Repeated(source), size),
    WITHOUT_JPEG: by_pillow(ours(Repeated(source), size)),
    'ours, prepared': ours(Repeated(prepared), size),
    'Pillow': pillow(files, size),
  }
  if fast_jpeg.simplejpeg is None:
    del found[WITHOUT_JPEG]
    print("ours with simplejpeg: left out (pip install '.[jpeg]')")
  for name, make in (('tf.data', tensorflow), ('PyTorch', pytorch)):
    try:
      found[name] = make(files, size)
    except ImportError as error:
      print(f'{name}: left out ({error})')
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--sizes', type=int, nargs='+', default=[64, 256])
  parser.add_argument('--count', type=int, default=320)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument(
    '--workers', type=int, default=2, help='0 leaves them out'
  )
  args = parser.parse_args()
  if args.count < BATCH_SIZE * max(1, args.workers):
    parser.error(
      f'--count={args.count} is less than a batch of {BATCH_SIZE} per worker.'
    )
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    files = write_jpegs(folder / 'files', args.count // BATCH_SIZE * BATCH_SIZE)
    for size in args.sizes:
      contenders = contenders_of(files, folder, size)
      title = f'{size} x {size}, one core, per second of CPU time'
      with one_core():
        compare(title, contenders, per_core, args.rounds)
      if args.workers:
        title = f'{size} x {size}, {args.workers} workers, per second'
        for name in ('Pillow', WITHOUT_JPEG):
          contenders.pop(name, None)
        measure = functools.partial(per_clock, workers=args.workers)
        compare(title, contenders, measure, args.rounds)


if __name__ == '__main__':
  main()
