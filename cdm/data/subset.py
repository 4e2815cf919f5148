"""Chosen images of a source at once."""

import re

import numpy as np

from cdm.data import pipeline, transforms


class Chosen:
  """Some records of a source, as a source of its own."""

  def __init__(self, source, indices):
    self._source, self._indices = source, list(indices)
    self.num_classes = source.num_classes
    self.class_names = source.class_names

  def __len__(self):
    return len(self._indices)

  def __getitem__(self, i):
    return self._source[self._indices[i]]

  @property
  def fingerprint(self):
    return f'{self._source.fingerprint}[{self._indices}]'


def spread(source, count):
  """-> count record numbers, one from each count-th of a source.

  Where in its stretch a record lies is drawn once and for all: an even stride
  would meet only some classes of a source whose labels go round.

  Raises:
    ValueError: more than the source has.
  """
  if count > len(source):
    raise ValueError(
      f'{count} images were asked for, but the data has {len(source)}; ask '
      'for fewer.'
    )
  within = np.random.default_rng(0).random(count)
  chosen = []
  for i in range(count):
    number = int((i + within[i]) * len(source) / count)
    # A record that lies across two stretches may be met in both.
    chosen.append(max(number, chosen[-1] + 1) if chosen else number)
  return chosen


def first(source, count):
  """-> the numbers of ImageNet's first validation images, or None.

  Their order is that of their file names, ILSVRC2012_val_00000001 and so on,
  however the source sorts them.

  Args:
    source: see `cdm.data.folder`.
    count: how many.

  Returns:
    list of int, or None of a source without such names.
  """
  names = source.file_names() if hasattr(source, 'file_names') else None
  found = [re.search(r'ILSVRC2012_val_(\d{8})\.', n) for n in names or ()]
  if not found or None in found:
    return None
  order = sorted(range(len(found)), key=lambda i: int(found[i][1]))
  return order[:count]


def gather(source, indices, **fit):
  """-> (uint8 [N, S, S, 3], int32 [N]) of the records `indices`.

  Args:
    source: see `cdm.data.folder`.
    indices: N record numbers.
    **fit: image_size, crop, filter, min_side and max_skip_fraction of
      `pipeline.make_iterator`.

  Raises:
    ValueError: too many of them cannot be read.
  """
  batches = pipeline.make_iterator(
    Chosen(source, indices),
    batch_size=len(indices),
    seed=0,
    shuffle=False,
    repeat=False,
    **fit,
  )
  batch = next(batches)
  batches.close()
  return batch['image'], batch['label']


def gather_one(source, record, *, image_size, crop, filter, min_side):
  """-> (uint8 [S, S, 3], label) of one record; None where it is too small.

  Nothing stands in for what is left out, as in training: an image that is
  judged is judged once.

  Args:
    source: see `cdm.data.folder`.
    record: its number.
    image_size, crop, filter, min_side: of `pipeline.make_iterator`.

  Raises:
    transforms.BadImage: it cannot be read.
  """
  element = source[record]
  if int(element['short_side']) < min_side:
    return None
  rng = np.random.default_rng((0, record))  # of random crops
  image = transforms.fit(
    element['image'], size=image_size, crop=crop, filter=filter, rng=rng
  )
  return image, int(element['label'])
