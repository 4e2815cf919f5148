"""Turns a source of images into shuffled batches whose position can be saved.

There is one global stream of records. It runs epoch after epoch, and each epoch
is a permutation drawn from the seed (Grain's index shuffle, without a buffer).
Global batch k is the k-th stretch of that stream, and process p of P takes the
p-th part of it. So the images do not depend on how many processes or workers
read them, the position in the stream is a single number, and no record is
dropped where an epoch ends.

Every random draw for a record (flip, random crop, a replacement) depends on
(seed, position in the stream) alone, so a restart does not change it.
"""

import contextlib
import copy
import os
import pickle
import shutil
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import grain
import numpy as np

from cdm.data import host_memory, image_notes, transforms, workers
from cdm.data import source as source_contract
from cdm.data.files import storage_retry
from cdm.data.pipeline_state import Order, PipelineState, SkipCounts, check
from cdm.data.skipped_records import Skip, SkipCounter
from cdm.data.source import Source

_TRIES_PER_RECORD = 1000
_BUFFER_SIZE = 2  # batches that every worker keeps ready
_MOST_WORKERS = 1024
_SHARED_MEMORY = '/dev/shm'
# A streak of unreadable records stops the run as soon as the streak would be
# less probable than this in a source that respects max_skip_fraction.
_IMPROBABLE = 1e-12


class PipelineOptions(NamedTuple):
  """The `pipeline` section of a config: how images become batches.

  Attributes:
    image_size: S, pixels.
    shuffle: whether every epoch has its own order.
    repeat: whether another epoch follows the last. If not, every process
      yields the same number of batches, and the last batch has only the images
      that remain, none for some processes, unless pad_remainder is set.
    pad_remainder: fills that last batch with further images, and adds 'valid'
      to every batch, bool [b], False for these. Needs repeat=False.
    flip: mirrors left and right, each image with probability 1/2.
    crop: 'center', 'random' or 'none'; see `transforms.fit`.
    filter: 'area', 'bicubic', 'bilinear' or 'lanczos'.
    min_side: leaves out images whose short side has fewer pixels, as [SR3] does
      on ImageNet. For prepared data, the short side of the original counts.
    worker_count: processes that decode; 0 decodes in two threads of this one.
    max_skip_fraction: the run stops when a larger fraction is unreadable.
  """

  image_size: int
  shuffle: bool = True
  repeat: bool = True
  pad_remainder: bool = False
  flip: bool = False
  crop: str = 'center'
  filter: str = 'area'
  min_side: int = 0
  worker_count: int = 0
  max_skip_fraction: float = 0.01


def make_iterator(
  source: Source,
  options: PipelineOptions,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  rows: Iterable[int] | None = None,
) -> 'Batches':
  """Returns an iterator over this process's batches of a source.

  Unreadable images, and images whose short side is below `min_side`, are
  replaced by random other images of the same source, so every batch is full.
  Both are counted, and a warning names each unreadable image. A read whose
  error may pass is tried again, see `storage_retry`, and no other image
  replaces it: the batches stay the same.

  Args:
    source: the images, see `cdm.data.source`.
    options: the config section.
    batch_size: b, images per batch of this process.
    seed: non-negative integer that determines order, flips and crops.
    process_index: p, the index of this process.
    process_count: P. The global batch has P b images, and this process takes
      the p-th stretch of b.
    rows: int [b], the rows of the global batch that this process reads. If
      given, it replaces process_index and process_count, and batch_size is the
      size of the global batch.

  Returns:
    A `Batches` iterator over {'image': uint8 [b, S, S, 3], 'label': int32 [b]}.

  Raises:
    ValueError: an argument or option is out of range, or the source is empty.
  """
  fit: dict[str, Any] = {
    'size': options.image_size,
    'crop': options.crop,
    'filter': options.filter,
  }
  transforms.check_fit(**fit)
  _check(
    source,
    batch_size=batch_size,
    worker_count=options.worker_count,
    seed=seed,
    min_side=options.min_side,
    process=(process_index, process_count),
    max_skip_fraction=options.max_skip_fraction,
  )
  if options.pad_remainder and options.repeat:
    raise ValueError(
      'pad_remainder needs repeat=False: an endless stream has no last batch.'
    )
  indices = grain.MapDataset.range(len(source))
  if options.shuffle:
    # The seed is hashed because Grain adds the epoch to it: otherwise seed 1
    # would repeat the epochs of seed 0, one epoch late.
    mixed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    indices = indices.shuffle(seed=mixed)
  read = _ReadImage(
    source,
    indices.repeat(),
    fit=fit,
    seed=seed,
    flip=options.flip,
    min_side=options.min_side,
    max_skip_fraction=options.max_skip_fraction,
  )
  return Batches(
    read,
    share=_process_share(batch_size, process_index, process_count, rows),
    end=None if options.repeat else len(source),
    pad=options.pad_remainder,
    worker_count=options.worker_count,
    skips=SkipCounter(len(source), options.max_skip_fraction),
    order={'records': len(source), 'seed': seed, 'shuffle': options.shuffle},
  )


def _check(source, *, batch_size, process, max_skip_fraction, **at_least_0):
  if not len(source):
    raise ValueError(f'{type(source).__name__} has no images.')
  if batch_size < 1:
    raise ValueError(f'batch_size is {batch_size}; it must be at least 1.')
  for name, value in at_least_0.items():
    if value < 0:
      raise ValueError(f'{name} is {value}; it must be at least 0.')
  if at_least_0['worker_count'] > _MOST_WORKERS:
    raise ValueError(
      f'worker_count is {at_least_0["worker_count"]}; it must be at most '
      f'{_MOST_WORKERS}.'
    )
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

  def __init__(
    self,
    read: '_ReadImage',
    *,
    share: '_ProcessShare',
    end: int | None,
    pad: bool,
    worker_count: int,
    skips: SkipCounter,
    order: Order,
  ):
    self._read, self._share, self._end, self._pad = read, share, end, pad
    self._worker_count, self._skips, self._order = worker_count, skips, order
    self._position = 0  # records of the stream before the next global batch
    self._running: list[Any] = []  # Grain's iterator while it runs, else empty
    # The finalizer also runs at exit, while the modules that Grain needs are
    # still loaded.
    weakref.finalize(self, _stop, self._running)

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._end is not None and self._position >= self._end:
      self.close()
      raise StopIteration
    batch = workers.read_next(
      self._running, start=self._start, restart=self._restart
    )
    self._skips.add(batch.pop('tried'), batch.pop('skipped'))
    image_notes.count(image_notes.Note(*note) for note in batch.pop('notes'))
    self._position += self._share.global_size
    if not self._worker_count:
      return batch
    # The arrays of worker processes lie in shared memory that is freed when the
    # workers end, so they are copied.
    return {key: np.array(value) for key, value in batch.items()}

  def _restart(self):
    """Stops the workers; the next ones open the files of the source anew."""
    self.close()
    self._read = self._read.reopened()

  def get_state(self) -> PipelineState:
    """Returns the position and the counts as a dict that JSON can store.

    The dict is the same on every process, except for the counts of skipped
    records, which affect nothing but the warnings and max_skip_fraction.
    Batches that were prefetched but not yet returned are read again.
    """
    return {
      'position': self._position,
      'order': self._order.copy(),
      'skipped': self._skips.counts(),
    }

  def set_state(self, state: PipelineState) -> None:
    """Continues where `get_state` was called.

    The batch size and the number of processes or workers may have changed.

    Raises:
      ValueError: the state belongs to another stream of records.
    """
    check(state)
    if state['order'] != self._order:
      raise ValueError(
        f'The saved data position belongs to the stream {state["order"]}, but '
        f'this one is {self._order}. Use the data set and seed of the saved '
        f'run, or start a new run in an empty workdir.'
      )
    self.close()
    self._position = int(state['position'])
    self._skips.restore(state['skipped'])

  @property
  def skipped(self) -> SkipCounts:
    """The records that this process has read and left out so far."""
    return self._skips.counts()

  def close(self) -> None:
    """Stops threads and worker processes; iterating starts them again."""
    _stop(self._running)

  def _start(self):
    load = _LoadBatch(
      self._read, self._share, self._position, self._end, self._pad
    )
    # Threads and workers share out whole batches, not records, so the content
    # of a batch cannot depend on how many of them there are.
    self._check_memory()
    batches = grain.MapDataset.range(load.count()).map(load)
    self._running.append(
      workers.run(
        batches, worker_count=self._worker_count, buffer_size=_BUFFER_SIZE
      )
    )

  def _check_memory(self):
    batch_bytes = self._share.size * 3 * self._read.image_size**2
    total = host_memory.total_bytes()
    if self._worker_count:
      self._check_shared_memory(batch_bytes, total)
    if total is not None and batch_bytes > total:
      raise ValueError(
        f'batch_size={self._share.size} of {self._read.image_size} pixels '
        f'needs about {batch_bytes >> 20} MB of memory, but this machine has '
        f'{total >> 20} MB. Lower batch_size.'
      )

  def _check_shared_memory(self, batch_bytes, total):
    # Workers hand their batches over in shared memory; when it is full, the
    # kernel kills them (SIGBUS).
    needed = self._worker_count * (_BUFFER_SIZE + 2) * batch_bytes
    if os.path.exists(_SHARED_MEMORY):
      free = shutil.disk_usage(_SHARED_MEMORY).free
      has = f'{_SHARED_MEMORY} has {free >> 20} MB free'
      more = ', or enlarge the memory (docker run --shm-size=...)'
    elif total is not None:  # On macOS it is part of the memory.
      free, has, more = total, f'this machine has {total >> 20} MB', ''
    else:
      return
    if needed > free:
      raise ValueError(
        f'worker_count={self._worker_count} needs about {needed >> 20} MB of '
        f'shared memory, but {has}. Lower worker_count{more}.'
      )


def _stop(running):
  while running:
    running.pop().close()


class _ProcessShare(NamedTuple):
  """The rows of a global batch that this process reads."""

  rows: Sequence[int]
  global_size: int

  @property
  def size(self) -> int:
    return len(self.rows)


def _process_share(batch_size, process_index, process_count, rows):
  if rows is None:
    first = batch_size * process_index
    rows = range(first, first + batch_size)
    return _ProcessShare(rows, batch_size * process_count)
  return _ProcessShare([int(row) for row in rows], batch_size)


class _LoadBatch:
  """Maps k to the k-th batch of this process, counted from a position."""

  def __init__(self, read, share, position, end, pad):
    self._read, self._share = read, share
    self._position, self._end, self._pad = position, end, pad

  def count(self) -> int:
    """Returns the number of batches, or a huge number if the stream repeats."""
    if self._end is None:
      return 2**62
    return -(-(self._end - self._position) // self._share.global_size)

  def __call__(self, k: int) -> dict[str, Any]:
    first = self._position + k * self._share.global_size
    positions = [first + row for row in self._share.rows]
    valid = np.array([self._end is None or p < self._end for p in positions])
    if not self._pad:
      positions = [p for p, keep in zip(positions, valid, strict=True) if keep]
    # All random draws come first, because reading an image evicts the code of
    # the random generator from the core's cache.
    drawn = [self._read.draw(p) for p in positions]
    loaded = [self._read(*arguments) for arguments in drawn]
    size = self._read.image_size
    images = [element['image'] for element, _, _ in loaded]
    batch = {
      'image': np.array(images, np.uint8).reshape(-1, size, size, 3),
      'label': np.array([e['label'] for e, _, _ in loaded], np.int32),
      'tried': sum(tried for _, tried, _ in loaded),
      'skipped': [skip for _, _, skips in loaded for skip in skips],
      'notes': [tuple(note) for e, _, _ in loaded for note in e['notes']],
    }
    if self._pad:
      batch['valid'] = valid
    return batch


class _ReadImage:
  """Maps a position in the stream to one cropped and resized image."""

  def __init__(
    self, source, indices, *, fit, seed, flip, min_side, max_skip_fraction
  ):
    self._source, self._indices, self._fit = source, indices, fit
    self._seed, self._flip, self._min_side = seed, flip, min_side
    self._max_skip_fraction = max_skip_fraction
    self.image_size = fit['size']

  def draw(self, position: int) -> tuple[int, bool, np.random.Generator]:
    """Returns (index in the source, whether to flip, rng for what follows)."""
    rng = np.random.default_rng((self._seed, position))
    flip = self._flip and rng.random() < 0.5
    return int(self._indices[position]), flip, rng

  def __call__(
    self, index: int, flip: bool, rng: np.random.Generator
  ) -> tuple[dict[str, Any], int, list[Skip]]:
    """Returns (element, records tried, [(kind, name, reason) of skipped])."""
    skips = []
    while True:
      element, skip = self._try(index)
      if element is not None:
        break
      skips.append(skip)
      self._give_up_if_hopeless(skips)
      index = int(rng.integers(len(self._source)))
    image = transforms.fit(element['image'], rng=rng, **self._fit)
    if flip:
      image = transforms.mirror(image)
    notes = element.get('notes', ())
    element = {'image': image, 'label': element['label'], 'notes': notes}
    return element, len(skips) + 1, skips

  def reopened(self) -> '_ReadImage':
    """Returns the same with files that are opened anew, as in a new worker."""
    fresh = copy.copy(self)
    # A source that tests make of a local class cannot be pickled.
    with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
      fresh._source = pickle.loads(pickle.dumps(self._source))
    return fresh

  def _give_up_if_hopeless(self, skips):
    bad = sum(kind == 'unreadable' for kind, _, _ in skips)
    hopeless = bad and self._max_skip_fraction**bad < _IMPROBABLE
    if hopeless or len(skips) >= _TRIES_PER_RECORD:
      _, name, reason = skips[-1]
      if not bad:
        raise ValueError(
          f'min_side is {self._min_side}, and {len(skips)} records in a row '
          f'are smaller; the last is {name}: {reason}.'
        )
      raise ValueError(
        f'{bad} unreadable records and {len(skips) - bad} below '
        f'min_side={self._min_side} in a row, with max_skip_fraction='
        f'{self._max_skip_fraction}; the last is {name}: {reason}.'
      )

  def _try(self, index):
    try:
      # Other workers read for the rest of the time.
      element = source_contract.read(
        self._source, index, seconds=storage_retry.patience() / 3
      )
    except transforms.BadImage as error:
      return None, ('unreadable', error.name, error.reason)
    side = int(element['short_side'])
    if side < self._min_side:
      return None, ('too_small', f'record {index}', f'short side {side}')
    return element, None
