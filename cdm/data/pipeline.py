"""Source -> endless, shuffled, seeded batches of uint8, with an exact position.

There is one global stream of records: epoch after epoch, each a permutation
drawn from the seed (Grain's index shuffle, nothing is buffered). Global batch k
is the k-th stretch of that stream, process p of P takes the p-th part of it,
so the images do not depend on how many processes or workers read them, the
position is a single number, and nothing is dropped where an epoch ends.

What is drawn for a record (flip, random crop, a replacement) comes from
(seed, position in the stream) alone, hence from nothing that a restart changes.
"""

import os
import shutil
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np
from absl import logging

from cdm.data import transforms, workers

# The fraction is taken over stretches of an epoch, or of this many records in
# larger sets: with less, a set just below the limit would stop by chance.
_ENOUGH_TRIED = 100_000
_TRIES_PER_RECORD = 1000
_BUFFER_SIZE = 2  # batches kept ready, by every worker
_SHARED_MEMORY = '/dev/shm'
# So improbable, if the fraction were respected, that it is not.
_IMPROBABLE = 1e-12


def make_iterator(
  source,
  *,
  image_size,
  batch_size,
  seed,
  process_index=0,
  process_count=1,
  rows=None,
  shuffle=True,
  repeat=True,
  pad_remainder=False,
  flip=False,
  crop='center',
  filter='area',
  min_side=0,
  worker_count=0,
  max_skip_fraction=0.01,
):
  """Starts reading a source.

  Unreadable records, and those below `min_side`, are replaced by others of the
  same source, drawn at random, so every batch is full; they are counted, and
  the unreadable ones named in a warning.

  Args:
    source: see `cdm.data.folder`.
    image_size: S, pixels.
    batch_size: b, images per batch of this process.
    seed: non-negative integer; order, flips and crops follow from it.
    process_index: p, of this process.
    process_count: P; the global batch is P b, and this process has its p-th
      stretch.
    rows: instead, int [b], which images of a global batch of batch_size are
      this process's; batch_size is that of all then.
    shuffle: whether every epoch has its own order.
    repeat: whether another epoch follows the last. If not, every process gives
      the same number of batches, and the remainder as the last one: shorter,
      for some processes even empty, unless padded.
    pad_remainder: fills that last batch with further records and adds 'valid',
      bool [b], to every batch. Needs repeat=False.
    flip: left-right, every second image.
    crop: 'center', 'random' or 'none'; see `transforms.fit`.
    filter: 'area', 'bicubic', 'bilinear' or 'lanczos'.
    min_side: leaves out images whose short side is less, as [SR3] does on
      ImageNet; for prepared data the original's side counts.
    worker_count: processes that decode; 0 decodes in two threads of this one.
    max_skip_fraction: more unreadable records than that stop the run.

  Returns:
    A `Batches` iterator over {'image': uint8 [b, S, S, 3], 'label': int32 [b]}.

  Raises:
    ValueError: an argument out of range, or an empty source.
  """
  transforms.check_fit(size=image_size, crop=crop, filter=filter)
  _check(
    source,
    batch_size=batch_size,
    worker_count=worker_count,
    seed=seed,
    min_side=min_side,
    process=(process_index, process_count),
    max_skip_fraction=max_skip_fraction,
  )
  if pad_remainder and repeat:
    raise ValueError('pad_remainder needs repeat=False: else nothing remains.')
  records = grain.MapDataset.range(len(source))
  if shuffle:
    # Hashed: Grain adds the epoch to the seed, so seed 1 would repeat the
    # epochs of seed 0, one late.
    mixed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    records = records.shuffle(seed=mixed)
  read = _Read(
    source,
    records.repeat(),
    fit=dict(size=image_size, crop=crop, filter=filter),
    seed=seed,
    flip=flip,
    min_side=min_side,
    max_skip_fraction=max_skip_fraction,
  )
  return Batches(
    read,
    part=_part(batch_size, process_index, process_count, rows),
    end=None if repeat else len(source),
    pad=pad_remainder,
    worker_count=worker_count,
    skips=_Skips(len(source), max_skip_fraction),
    order={'records': len(source), 'seed': seed, 'shuffle': shuffle},
  )


def _check(source, *, batch_size, process, max_skip_fraction, **at_least_0):
  if not len(source):
    raise ValueError(f'{type(source).__name__} has no images.')
  if batch_size < 1:
    raise ValueError(f'batch_size is {batch_size}; it must be at least 1.')
  for name, value in at_least_0.items():
    if value < 0:
      raise ValueError(f'{name} is {value}; it must be at least 0.')
  process_index, process_count = process
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index is {process_index}; it must be below process_count, '
      f'{process_count}.'
    )
  if not 0 <= max_skip_fraction <= 1:
    raise ValueError(
      f'max_skip_fraction is {max_skip_fraction}; it must be within 0 and 1.'
    )


class Batches:
  """Iterator over the batches of one process; its position can be saved."""

  def __init__(self, read, *, part, end, pad, worker_count, skips, order):
    self._read, self._part, self._end, self._pad = read, part, end, pad
    self._worker_count, self._skips, self._order = worker_count, skips, order
    self._position = 0  # records of the stream before the next global batch
    self._running = []  # Grain's iterator, once there is one
    # Stopped at exit too, while the modules that Grain needs are still there.
    weakref.finalize(self, _stop, self._running)

  def __iter__(self):
    return self

  def __next__(self):
    if self._end is not None and self._position >= self._end:
      self.close()
      raise StopIteration
    if not self._running:
      self._start()
    batch = next(self._running[0])
    self._skips.add(batch.pop('tried'), batch.pop('skipped'))
    self._position += self._part.global_size
    if not self._worker_count:
      return batch
    # Copied, because arrays of worker processes lie in shared memory that goes
    # with them.
    return {key: np.array(value) for key, value in batch.items()}

  def get_state(self):
    """-> JSON-able dict: position and counts, the same on every process.

    Batches already prefetched are not part of it: they are read again. (Only
    the counts of skipped records differ by process, and do no more than feed
    the warnings.)
    """
    return {
      'position': self._position,
      'order': dict(self._order),
      'skipped': self._skips.counts(),
    }

  def set_state(self, state):
    """Continues where `get_state` was called.

    The batch size and the number of processes or workers may have changed.

    Raises:
      ValueError: the state belongs to another stream of records.
    """
    if state['order'] != self._order:
      raise ValueError(
        f'The saved data position belongs to another stream, '
        f'{state["order"]}; this one has {self._order}. Restore the data set '
        f'and seed of that run, or start another in an empty workdir.'
      )
    self.close()
    self._position = int(state['position'])
    self._skips.restore(state['skipped'])

  @property
  def skipped(self):
    """{'tried', 'unreadable', 'too_small'}: records of this process so far."""
    return self._skips.counts()

  def close(self):
    """Stops threads and worker processes; iterating starts them again."""
    _stop(self._running)

  def _start(self):
    load = _Load(self._read, self._part, self._position, self._end, self._pad)
    # Batches, not records, are what threads and workers share out: so the
    # content of a batch cannot depend on how many there are.
    self._check_shared_memory()
    batches = grain.MapDataset.range(load.count()).map(load)
    self._running.append(
      workers.run(
        batches, worker_count=self._worker_count, buffer_size=_BUFFER_SIZE
      )
    )

  def _check_shared_memory(self):
    # What workers hand over lies there; a full one kills them (SIGBUS).
    if not self._worker_count or not os.path.exists(_SHARED_MEMORY):
      return
    batch_bytes = self._part.size * 3 * self._read.image_size**2
    needed = self._worker_count * (_BUFFER_SIZE + 2) * batch_bytes
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if needed > free:
      raise ValueError(
        f'worker_count={self._worker_count} needs about {needed >> 20} MB of '
        f'shared memory, and {_SHARED_MEMORY} has {free >> 20} MB. Lower '
        f'worker_count, or enlarge it (docker run --shm-size=...).'
      )


def _stop(running):
  while running:
    running.pop().close()


class _Part(NamedTuple):
  """Which images of a global batch are this process's."""

  rows: Sequence[int]
  global_size: int

  @property
  def size(self):
    return len(self.rows)


def _part(batch_size, process_index, process_count, rows):
  if rows is None:
    first = batch_size * process_index
    rows = range(first, first + batch_size)
    return _Part(rows, batch_size * process_count)
  return _Part([int(row) for row in rows], batch_size)


class _Load:
  """k -> the k-th batch of one process from some position on."""

  def __init__(self, read, part, position, end, pad):
    self._read, self._part = read, part
    self._position, self._end, self._pad = position, end, pad

  def count(self):
    """How many batches there are; endless streams have as many as fit."""
    if self._end is None:
      return 2**62
    return -(-(self._end - self._position) // self._part.global_size)

  def __call__(self, k):
    first = self._position + k * self._part.global_size
    positions = [first + row for row in self._part.rows]
    valid = np.array([self._end is None or p < self._end for p in positions])
    if not self._pad:
      positions = [p for p, keep in zip(positions, valid, strict=True) if keep]
    # Drawn all at once, as one image takes the code of the other's draw out of
    # the core's cache.
    drawn = [self._read.draw(p) for p in positions]
    loaded = [self._read(*what) for what in drawn]
    size = self._read.image_size
    images = [element['image'] for element, _, _ in loaded]
    batch = {
      'image': np.array(images, np.uint8).reshape(-1, size, size, 3),
      'label': np.array([e['label'] for e, _, _ in loaded], np.int32),
      'tried': sum(tried for _, tried, _ in loaded),
      'skipped': [skip for _, _, skips in loaded for skip in skips],
    }
    if self._pad:
      batch['valid'] = valid
    return batch


class _Read:
  """Position in the stream -> one finished image."""

  def __init__(
    self, source, records, *, fit, seed, flip, min_side, max_skip_fraction
  ):
    self._source, self._records, self._fit = source, records, fit
    self._seed, self._flip, self._min_side = seed, flip, min_side
    self._max_skip_fraction = max_skip_fraction
    self.image_size = fit['size']

  def draw(self, position):
    """-> (record, whether to flip it, generator of what else is drawn)."""
    rng = np.random.default_rng((self._seed, position))
    flip = self._flip and rng.random() < 0.5
    return int(self._records[position]), flip, rng

  def __call__(self, record, flip, rng):
    """-> (element, number of records tried, [(kind, name, reason), ...])."""
    skips = []
    while True:
      element, skip = self._try(record)
      if element is not None:
        break
      skips.append(skip)
      self._give_up_if_hopeless(skips)
      record = int(rng.integers(len(self._source)))
    image = transforms.fit(element['image'], rng=rng, **self._fit)
    if flip:
      image = transforms.mirror(image)
    element = {'image': image, 'label': element['label']}
    return element, len(skips) + 1, skips

  def _give_up_if_hopeless(self, skips):
    bad = sum(kind == 'unreadable' for kind, _, _ in skips)
    hopeless = bad and self._max_skip_fraction**bad < _IMPROBABLE
    if hopeless or len(skips) >= _TRIES_PER_RECORD:
      _, name, reason = skips[-1]
      raise ValueError(
        f'{bad} unreadable records and {len(skips) - bad} below '
        f'min_side={self._min_side} in a row, with max_skip_fraction='
        f'{self._max_skip_fraction}; the last: {name}: {reason}.'
      )

  def _try(self, record):
    try:
      element = self._source[record]
    except transforms.BadImage as error:
      return None, ('unreadable', error.name, error.reason)
    side = int(element['short_side'])
    if side < self._min_side:
      return None, ('too_small', f'record {record}', f'short side {side}')
    return element, None


class _Skips:
  """Counts what was skipped, names it once, and stops when it is too much."""

  def __init__(self, records, max_fraction):
    self._enough = min(records, _ENOUGH_TRIED)
    self._max_fraction = max_fraction
    self._count = {'tried': 0, 'unreadable': 0, 'too_small': 0}
    self._named = set()
    self._last = ''

  def counts(self):
    return dict(self._count)

  def restore(self, counts):
    self._count = dict(counts)

  def add(self, tried, skips):
    self._count['tried'] += tried
    for kind, name, reason in skips:
      self._count[kind] += 1
      if kind == 'too_small':
        self._report_too_small()
      elif name not in self._named:
        self._named.add(name)
        self._last = f'; the last: {name}: {reason}'
        logging.warning('Skipped %s: %s (%s)', name, reason, self._sum('such'))
    stretches = -(-self._count['tried'] // self._enough)
    allowed = self._max_fraction * self._enough * max(1, stretches)
    if self._count['unreadable'] > allowed:
      raise ValueError(
        f'{self._sum("unreadable")}, more than max_skip_fraction='
        f'{self._max_fraction}{self._last}. Repair or remove them, or allow '
        f'more.'
      )

  def _sum(self, adjective):
    bad, tried = self._count['unreadable'], self._count['tried']
    return f'{bad} {adjective} of {tried} records read so far'

  def _report_too_small(self):
    count, tried = self._count['too_small'], self._count['tried']
    if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
      logging.info(
        'Left out %d of %d records so far: below min_side.', count, tried
      )
