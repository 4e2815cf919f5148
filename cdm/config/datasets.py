"""Opens the data that a config names, for training and for evaluation."""

from collections.abc import Callable
from typing import NamedTuple

from cdm.config import instantiate
from cdm.data import (
  array_record,
  folder,
  npz_dataset,
  pipeline,
  sample_photos,
  subset,
  synthetic,
  tfds,
  transforms,
)

SOURCES = {
  'tfds': tfds.Tfds,
  'folder': folder.Folder,
  'array_records': array_record.ArrayRecords,
  'archive': npz_dataset.Archive,
  'photographs': sample_photos.Photographs,
  'synthetic': synthetic.Synthetic,
}


def open_source(section, name='train_data'):
  """-> the random-access source of a `train_data` or `eval_data` section."""
  return instantiate.choose(name, section, SOURCES)


class HeldOut(NamedTuple):
  """Evaluation images of a stage, spread evenly over the data.

  Attributes:
    source: all of the data, see `data.source`.
    records: their numbers in it.
    read: record numbers -> (uint8 [N, H, W, 3], int32 [N]).
  """

  source: object
  records: list
  read: Callable


def open_held_out(saved, count):
  """Opens `count` evaluation images of a stage.

  Args:
    saved: config of the stage.
    count: how many.

  Returns:
    HeldOut.

  Raises:
    ValueError: there is no such data, or less of it.
  """
  section = saved.pipeline
  opened = open_source(saved.eval_data, 'eval_data')

  def read(records):
    return subset.gather(
      opened,
      list(records),
      image_size=section.image_size,
      crop=section.crop,
      filter=section.filter,
      min_side=section.min_side,
      max_skip_fraction=section.max_skip_fraction,
    )

  return HeldOut(opened, subset.spread(opened, count), read)


def read_held_out(saved, count):
  """-> read(numbers below count), as `HeldOut.read` of the n-th record."""
  opened = open_held_out(saved, count)
  return lambda numbers: opened.read([opened.records[n] for n in numbers])


def open_evaluated(saved, count):
  """Opens `count` evaluation images that are judged, spread over the data.

  Args:
    saved: config of the stage.
    count: how many records are looked at.

  Returns:
    (read(number below count) -> (uint8 [H, W, 3], label), or None where the
    record is below min_side; str that is another if the data are).

  Raises:
    ValueError: there is no such data, or less of it.
  """
  section = saved.pipeline
  transforms.check_fit(
    size=section.image_size, crop=section.crop, filter=section.filter
  )
  opened = open_source(saved.eval_data, 'eval_data')
  indices = subset.spread(opened, count)

  def read(number):
    return subset.gather_one(
      opened,
      indices[number],
      image_size=section.image_size,
      crop=section.crop,
      filter=section.filter,
      min_side=section.min_side,
    )

  return read, opened.fingerprint


def training_batches(c, opened, *, seed, rows=None):
  """-> the endless, shuffled batches of this process for training.

  Args:
    c: ConfigDict of one stage.
    opened: its source, see `source`.
    seed: of order, flips and crops.
    rows: which images of the global batch are this process's; None is all.
  """
  return instantiate.splat(
    'pipeline',
    pipeline.make_iterator,
    c.pipeline,
    source=opened,
    batch_size=c.train.batch_size,
    seed=seed,
    process_index=0,
    process_count=1,
    rows=rows,
  )
