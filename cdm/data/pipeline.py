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

import os
import shutil
import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import grain
import numpy as np

from cdm.data import (
  host_memory,
  image_notes,
  record_stream,
  transforms,
  workers,
)
from cdm.data.pipeline_state import Order, PipelineState, SkipCounts, check
from cdm.data.skipped_records import SkipCounter
from cdm.data.source import Source

_MOST_WORKERS = 1024
_MOST_THREADS = 1024
_SHARED_MEMORY = '/dev/shm'
# Workers hand batches over in pieces of at most so many bytes and images. Whole
# batches of every worker took 12.9 GB of shared memory: 16 workers, 4 batches
# each, of 1,024 images of 256 pixels.
PIECE_BYTES = 2**23
_PIECE_IMAGES = 64


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
    crop: 'center', 'random', 'squash' or 'none'; see `transforms.fit`.
    filter: 'area', 'box_then_bicubic' or another; see `transforms`, which lists
      those of the field's programs.
    min_side: leaves out images whose short side has fewer pixels, as [SR3] does
      on ImageNet. For prepared data, the short side of the original counts.
      None leaves out what would have to be enlarged. A number below image_size,
      such as 0, takes smaller images too; each that is enlarged is counted.
    allow_enlarging: permits data whose images are all smaller than image_size,
      which are refused otherwise. With it, a min_side of None leaves out none.
    channels: of the images; 1 makes grey of RGB images. Those of arrays must
      have as many.
    worker_count: processes that decode; 0 decodes in threads of this one.
    read_threads: images that are read at once, by all workers together. Storage
      that answers after 20 ms gives each of them 50 images a second.
    read_buffer: images that are read or kept ready for the next batches; at
      most as many as 512 MB hold.
    max_skip_fraction: the run stops when a larger fraction is unreadable.
  """

  image_size: int
  shuffle: bool = True
  repeat: bool = True
  pad_remainder: bool = False
  flip: bool = False
  crop: str = 'center'
  filter: str = 'area'
  min_side: int | None = None
  worker_count: int = 0
  max_skip_fraction: float = 0.01
  read_threads: int = workers.Reading().threads
  read_buffer: int = workers.Reading().buffer
  allow_enlarging: bool = False
  channels: int = 3

  @property
  def least_side(self) -> int:
    """The shortest side of an image that is not left out, pixels."""
    if self.min_side is not None:
      return self.min_side
    # Without a crop nothing is resized: an image of another size is an error.
    as_it_is = self.allow_enlarging or self.crop == 'none'
    return 0 if as_it_is else self.image_size


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

  Unreadable images, and images whose short side is below `least_side`, are
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
    A `Batches` iterator over {'image': uint8 [b, S, S, C], 'label': int32 [b]},
    the image float32 in [-1, 1] of a source of arrays,
    with 'prior': uint8 [b, S/2, S/2, N] of a source of `facial_maps`, and with
    the further arrays of a source that has `input_shapes`.

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
    min_side=options.least_side,
    process=(process_index, process_count),
    max_skip_fraction=options.max_skip_fraction,
    reads=(options.read_threads, options.read_buffer),
  )
  if record_stream.input_shapes(source, options.image_size) and (
    options.flip or options.crop != 'none'
  ):
    raise ValueError(
      f'flip is {options.flip} and crop {options.crop!r}, but these images '
      'come with low-res inputs, which would not follow; use flip=False and '
      "crop='none'. The source turns and flips images itself."
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
  read = record_stream.ReadImage(
    source,
    indices.repeat(),
    fit=fit,
    seed=seed,
    flip=options.flip,
    min_side=options.least_side,
    max_skip_fraction=options.max_skip_fraction,
    channels=options.channels,
  )
  return Batches(
    read,
    share=record_stream.process_share(
      batch_size, process_index, process_count, rows
    ),
    end=None if options.repeat else len(source),
    pad=options.pad_remainder,
    reading=workers.Reading(
      options.read_threads, options.read_buffer, options.worker_count
    ),
    skips=SkipCounter(len(source), options.max_skip_fraction),
    order={'records': len(source), 'seed': seed, 'shuffle': options.shuffle},
  )


def _check(
  source, *, batch_size, process, max_skip_fraction, reads, **at_least_0
):
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
  for name, value in zip(('read_threads', 'read_buffer'), reads, strict=True):
    if value < 1:
      raise ValueError(f'{name} is {value}; it must be at least 1.')
  if reads[0] > _MOST_THREADS:
    raise ValueError(
      f'read_threads is {reads[0]}; it must be at most {_MOST_THREADS}.'
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
    read: record_stream.ReadImage,
    *,
    share: record_stream.ProcessShare,
    end: int | None,
    pad: bool,
    reading: workers.Reading,
    skips: SkipCounter,
    order: Order,
  ):
    self._read, self._share, self._end, self._pad = read, share, end, pad
    self._reading, self._skips, self._order = reading, skips, order
    # Without workers a batch is one piece.
    self._piece_rows = max(1, share.size)
    if reading.worker_count:
      self._piece_rows = _piece_rows(share.size, read.record_bytes)
    self._per_batch = 1  # pieces
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
    try:
      pieces = workers.read_next(
        self._running,
        start=self._start,
        take=self._take,
        restart=self._restart,
      )
    except Exception:
      self.close()  # Hundreds of records would else be read for nobody.
      raise
    for piece in pieces:
      self._skips.add(piece.pop('tried'), piece.pop('skipped'))
      image_notes.count(image_notes.Note(*note) for note in piece.pop('notes'))
    self._position += self._share.global_size
    if not self._reading.worker_count:
      return pieces[0]
    # The arrays of worker processes lie in shared memory that is freed when the
    # workers end; joining them copies them.
    return {
      key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]
    }

  def _take(self, iterator):
    """Returns the pieces of the next batch."""
    return [next(iterator) for _ in range(self._per_batch)]

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
    self._check_memory()
    pieces = record_stream.Pieces(
      self._read,
      self._share,
      position=self._position,
      end=self._end,
      pad=self._pad,
      most_rows=self._piece_rows,
    )
    self._per_batch = pieces.per_batch
    self._running.append(
      workers.run(
        pieces.read,
        pieces.collate,
        count=pieces.count,
        size=pieces.size,
        record_bytes=self._read.record_bytes,
        reading=self._reading,
      )
    )

  def _check_memory(self):
    batch_bytes = self._share.size * self._read.record_bytes
    total = host_memory.total_bytes()
    if self._reading.worker_count:
      self._check_shared_memory(total)
    if total is not None and batch_bytes > total:
      raise ValueError(
        f'batch_size={self._share.size} of {self._read.image_size} pixels '
        f'needs about {batch_bytes >> 20} MB of memory, but this machine has '
        f'{total >> 20} MB. Lower batch_size.'
      )

  def _check_shared_memory(self, total):
    # When it is full, the kernel kills the workers (SIGBUS).
    worker_count = self._reading.worker_count
    needed = _shared_bytes(
      worker_count, self._share.size, self._read.record_bytes
    )
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
        f'worker_count={worker_count} needs about {needed >> 20} MB of '
        f'shared memory, but {has}. Lower worker_count{more}.'
      )


def shared_memory_bytes(
  worker_count: int, batch_size: int, image_size: int
) -> int:
  """Returns the shared memory in which workers hand over what they read.

  Beside the pieces that wait, each worker makes one, and one may not be freed
  yet.

  Args:
    worker_count: number of worker processes.
    batch_size: images of a batch of this process.
    image_size: S, pixels.
  """
  return _shared_bytes(worker_count, batch_size, 3 * image_size**2)


def _shared_bytes(worker_count, batch_size, record_bytes):
  piece = _piece_rows(batch_size, record_bytes) * record_bytes
  return worker_count * (workers.GROUPS_AHEAD + 2) * piece


def _piece_rows(batch_size, record_bytes):
  room = max(1, PIECE_BYTES // record_bytes)
  return max(1, min(batch_size, room, _PIECE_IMAGES))


def _stop(running):
  while running:
    running.pop().close()
