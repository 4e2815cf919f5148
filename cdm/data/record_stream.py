"""Maps positions in the global stream of records to images of a batch.

See `pipeline` for what the stream is. Every position is read on its own, so
that several can be read at once, in any order.
"""

import contextlib
import copy
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from cdm.data import image_notes, rendered_maps, transforms
from cdm.data import source as source_contract
from cdm.data.files import storage_retry
from cdm.data.skipped_records import Skip
from cdm.data.source import Source

_TRIES_PER_RECORD = 1000
# A streak of unreadable records stops the run as soon as the streak would be
# less probable than this in a source that respects max_skip_fraction.
_IMPROBABLE = 1e-12
_ENDLESS = 2**40  # batches of a stream that repeats


def input_shapes(
  source: Any, image_size: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
  """Returns {name: (shape, dtype)} of further arrays of a record.

  Args:
    source: a source, or its class.
    image_size: S, pixels.
  """
  shapes = getattr(source, 'input_shapes', None)
  return {} if shapes is None else shapes(image_size)


def image_dtype(source: Any) -> Any:
  """Returns the dtype of the images of a source, or of its class."""
  return getattr(source, 'image_dtype', np.uint8)


class ProcessShare(NamedTuple):
  """The rows of a global batch that this process reads."""

  rows: Sequence[int]
  global_size: int

  @property
  def size(self) -> int:
    """Number of rows."""
    return len(self.rows)


def process_share(
  batch_size: int,
  process_index: int,
  process_count: int,
  rows: Iterable[int] | None,
) -> ProcessShare:
  """Returns the share that arguments of `pipeline.make_iterator` name."""
  if rows is None:
    first = batch_size * process_index
    own = range(first, first + batch_size)
    return ProcessShare(own, batch_size * process_count)
  return ProcessShare([int(row) for row in rows], batch_size)


class Record(NamedTuple):
  """What was read for a row of a batch.

  Attributes:
    image: [S, S, C].
    label: its label.
    tried: number of records that were read for it.
    skips: those of them that were left out.
    notes: what the pixels do not show, see `image_notes`.
    valid: whether the row counts; only a batch that is padded has others.
    prior: uint8 [S/2, S/2, N], the maps of a face; None if there are none.
    inputs: {name: array}, see `source.Element`; {} if there are none.
  """

  image: np.ndarray
  label: np.int32
  tried: int
  skips: list[Skip]
  notes: Sequence[Any]
  valid: bool
  prior: np.ndarray | None
  inputs: Mapping[str, Any]


class Pieces:
  """The batches of a process from a position on, cut into equal pieces.

  Attributes:
    per_batch: number of pieces of a batch.
    size: number of rows of a piece; the last piece of a batch may lack some.
    count: number of pieces, huge if the stream repeats.
  """

  def __init__(
    self,
    read: 'ReadImage',
    share: ProcessShare,
    *,
    position: int,
    end: int | None,
    pad: bool,
    most_rows: int,
  ):
    """Cuts batches.

    Args:
      read: reads one image.
      share: the rows of this process.
      position: number of records before the first global batch.
      end: number of records of a stream that ends; None if it repeats.
      pad: whether rows beyond the end are read too, and marked.
      most_rows: number of rows that a piece may have.
    """
    self._read, self._share = read, share
    self._position, self._end, self._pad = position, end, pad
    self.per_batch = -(-share.size // most_rows) or 1
    self.size = -(-share.size // self.per_batch) or 1
    batches = _ENDLESS
    if end is not None:
      batches = -(-(end - position) // share.global_size)
    self.count = batches * self.per_batch

  def read(self, piece: int, i: int) -> Record | None:
    """Returns what row i of a piece holds; None if there is no such row."""
    batch, part = divmod(piece, self.per_batch)
    row = part * self.size + i
    if row >= self._share.size:
      return None
    first = self._position + batch * self._share.global_size
    position = first + self._share.rows[row]
    valid = self._end is None or position < self._end
    return self._read(position, valid) if valid or self._pad else None

  def collate(self, records: Sequence[Record]) -> dict[str, Any]:
    """Returns the rows of a piece as arrays, with what else was read."""
    size = self._read.image_size
    images = [record.image for record in records]
    piece = {
      'image': np.array(images, self._read.image_dtype).reshape(
        -1, size, size, self._read.channels
      ),
      'label': np.array([record.label for record in records], np.int32),
      'tried': sum(record.tried for record in records),
      'skipped': [skip for record in records for skip in record.skips],
      'notes': [tuple(note) for record in records for note in record.notes],
    }
    if count := self._read.num_maps:
      maps = [record.prior for record in records]
      shape = (-1, size // 2, size // 2, count)
      piece['prior'] = np.array(maps, np.uint8).reshape(shape)
    for name, (shape, dtype) in self._read.input_shapes.items():
      arrays = [record.inputs[name] for record in records]
      piece[name] = np.array(arrays, dtype).reshape(-1, *shape)
    if self._pad:
      piece['valid'] = np.array([record.valid for record in records], bool)
    return piece


class ReadImage:
  """Maps a position in the stream to one cropped and resized image.

  Attributes:
    image_size: S, pixels.
    channels: C of the images.
    image_dtype: of the images.
    num_maps: N, maps of faces that the source renders, see `facial_maps`.
    input_shapes: {name: (shape, dtype)} of the further arrays of a record, see
      `source.Element`.
  """

  def __init__(
    self,
    source: Source,
    indices: grain.MapDataset[int],
    *,
    fit: dict[str, Any],
    seed: int,
    flip: bool,
    min_side: int,
    max_skip_fraction: float,
    channels: int = 3,
  ):
    """Takes what `pipeline.make_iterator` was given.

    Args:
      source: the images.
      indices: the index in the source of every position.
      fit: arguments of `transforms.fit`.
      seed: seed of the stream.
      flip: whether half of the images are mirrored.
      min_side: see `pipeline.PipelineOptions.least_side`.
      max_skip_fraction: see `pipeline.PipelineOptions`.
      channels: C of the images.
    """
    self._source, self._indices, self._fit = source, indices, fit
    self._seed, self._flip, self._min_side = seed, flip, min_side
    self._max_skip_fraction = max_skip_fraction
    self.image_size, self.channels = fit['size'], channels
    self.image_dtype = image_dtype(source)
    self.num_maps = getattr(source, 'num_maps', 0)
    self.input_shapes = input_shapes(source, self.image_size)

  @property
  def record_bytes(self) -> int:
    """Bytes of what is read for a row."""
    of_inputs = sum(
      math.prod(shape) * np.dtype(dtype).itemsize
      for shape, dtype in self.input_shapes.values()
    )
    of_maps = self.num_maps * (self.image_size // 2) ** 2
    pixel = self.channels * np.dtype(self.image_dtype).itemsize
    return pixel * self.image_size**2 + of_maps + of_inputs

  def __call__(self, position: int, valid: bool) -> Record:
    """Reads a position, or further records until one can be used.

    Args:
      position: its number in the stream.
      valid: what `Record.valid` says.
    """
    rng = np.random.default_rng((self._seed, position))
    flip = self._flip and rng.random() < 0.5
    index = self._indices[position]
    assert index is not None  # no record of the range is left out
    skips = []
    while True:
      element, skip = self._try(index)
      if element is not None:
        break
      skips.append(skip)
      self._give_up_if_hopeless(skips)
      index = int(rng.integers(len(self._source)))
    side = transforms.least_side(element['image'], element['short_side'])
    enlarged = image_notes.of_enlarging(
      side, self.image_size, f'record {index}'
    )
    prior = self._prior(element, rng, flip) if self.num_maps else None
    image = transforms.fit(element['image'], rng=rng, **self._fit)
    image = transforms.with_channels(image, self.channels)
    if flip:
      image = transforms.mirror(image)
    return Record(
      image=image,
      label=element['label'],
      tried=len(skips) + 1,
      skips=skips,
      notes=(*element.get('notes', ()), *enlarged),
      valid=valid,
      prior=prior,
      inputs=element.get('inputs', {}),
    )

  def _prior(self, element, rng, flip):
    """Returns the maps of the face in the square that `fit` will cut out."""
    source: Any = self._source
    region = transforms.fit_region(
      element['image'].shape, rng=copy.deepcopy(rng), **self._fit
    )
    maps = source.maps(element, region, side=self.image_size // 2)
    return rendered_maps.mirror(maps, source.mirrored) if flip else maps

  def reopened(self) -> 'ReadImage':
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
        least = f'{self._min_side}'
        if self._min_side == self.image_size:
          least += ' (None is the same as image_size)'
        raise ValueError(
          f'min_side is {least}, and {len(skips)} records in a row are '
          f'smaller; the last is {name}: {reason}.'
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
    # Of prepared data, the original counts.
    side = int(element['short_side'])
    if side < self._min_side:
      return None, ('too_small', f'record {index}', f'short side {side}')
    return element, None
