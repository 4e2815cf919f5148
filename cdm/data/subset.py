"""Selects images of a source by index, and reads the selected images."""

import re
from collections.abc import Iterable, Sequence, Sized
from typing import Any

import numpy as np

from cdm.data import image_notes, pipeline, record_stream, transforms
from cdm.data.source import Element, Source, read


class Subset:
  """A source of some images of another source.

  Image i is image indices[i] of the other source.
  """

  def __init__(self, source: Source, indices: Iterable[int]):
    self._source, self._indices = source, list(indices)
    self.num_classes = source.num_classes
    self.class_names = source.class_names
    self.image_dtype = record_stream.image_dtype(source)

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, i: int) -> Element:
    return self._source[self._indices[i]]

  @property
  def fingerprint(self) -> str:
    """The fingerprint of the other source, with the indices."""
    return f'{self._source.fingerprint}[{self._indices}]'


def spread_indices(source: Sized, count: int) -> list[int]:
  """Returns `count` indices spread over a source, in ascending order.

  The source is divided into `count` equal stretches, and one index is drawn
  from each, the same in every call. An even stride would meet only some classes
  of a source whose labels repeat in a cycle.

  Raises:
    ValueError: the source has fewer images than `count`.
  """
  if count > len(source):
    raise ValueError(
      f'{count} images were asked for, but the data has {len(source)}; ask '
      'for fewer.'
    )
  within = np.random.default_rng(0).random(count)
  chosen = []
  for i in range(count):
    index = int((i + within[i]) * len(source) / count)
    # Both of two neighbouring stretches may draw the image on their border.
    chosen.append(max(index, chosen[-1] + 1) if chosen else index)
  return chosen


def first_validation(source: Source, count: int) -> list[int] | None:
  """Returns the indices of ImageNet's first validation images, or None.

  Their order is that of their file names, ILSVRC2012_val_00000001 and so on,
  whatever the order of the source is.

  Args:
    source: the images, see `cdm.data.source`.
    count: number of images.

  Returns:
    At most `count` indices, or None unless all images have such file names.
  """
  read_names = getattr(source, 'file_names', None)
  names = read_names() if read_names else None
  matches = [re.search(r'ILSVRC2012_val_(\d{8})\.', n) for n in names or ()]
  numbers = [int(match[1]) for match in matches if match]
  if not numbers or len(numbers) < len(matches):
    return None
  return sorted(range(len(numbers)), key=lambda i: numbers[i])[:count]


def read_images(
  source: Source,
  indices: Sequence[int],
  rows: Sequence[int] | None = None,
  **fit: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Reads the images and labels at some indices.

  As in training, an image that is unreadable or too small is replaced by a
  random one of the others.

  Args:
    source: the images, see `cdm.data.source`.
    indices: N indices in the source.
    rows: positions in `indices`; only the images there are read, and each is
      that which stands there when all are read. None reads all.
    **fit: image_size, crop, filter, min_side, allow_enlarging, channels and
      max_skip_fraction of `pipeline.PipelineOptions`.

  Returns:
    (images [N, S, S, C], labels, int32 [N]).

  Raises:
    ValueError: too many of the images cannot be read.
  """
  batches = pipeline.make_iterator(
    Subset(source, indices),
    pipeline.PipelineOptions(shuffle=False, repeat=False, **fit),
    batch_size=len(indices),
    seed=0,
    rows=rows,
  )
  batch = next(batches)
  batches.close()
  return batch['image'], batch['label']


def read_image(
  source: Source,
  index: int,
  *,
  image_size: int,
  crop: str,
  filter: str,
  min_side: int,
  channels: int = 3,
) -> tuple[np.ndarray, int] | None:
  """Reads one image and its label, or returns None if the image is too small.

  Unlike in training, no other image replaces one that is left out, so that an
  evaluation counts each image once.

  Args:
    source: the images, see `cdm.data.source`.
    index: index in the source.
    image_size, crop, filter: see `pipeline.PipelineOptions`.
    min_side: see `pipeline.PipelineOptions.least_side`.
    channels: C of the image.

  Returns:
    (image [S, S, C], label), or None if its short side is below
    min_side.

  Raises:
    transforms.BadImage: the image cannot be read.
  """
  element = read(source, index)
  image_notes.count(element.get('notes', ()))
  if int(element['short_side']) < min_side:
    return None
  side = transforms.least_side(element['image'], element['short_side'])
  image_notes.count(
    image_notes.of_enlarging(side, image_size, f'record {index}')
  )
  rng = np.random.default_rng((0, index))  # for random crops
  image = transforms.fit(
    element['image'], size=image_size, crop=crop, filter=filter, rng=rng
  )
  return transforms.with_channels(image, channels), int(element['label'])
