"""Opens the data sets of a config, for training and for evaluation."""

import concurrent.futures
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from cdm.config import instantiate, key_errors, value_types
from cdm.data import (
  array_record,
  class_names,
  folder,
  folder_index,
  npz_dataset,
  pipeline,
  sample_photos,
  subset,
  synthetic,
  tfds,
  transforms,
)
from cdm.data.files import damaged_file, storage_retry
from cdm.data.forms import (
  imagenet_tar,
  lmdb_images,
  npz_batches,
  parquet,
  tfrecords,
  webdataset,
  zip_images,
)
from cdm.data.source import Source
from cdm.distributed import (
  bucket,
  bucket_folders,
  collectives,
  remote_paths,
  user_cache,
)

# A key of every data section, for the stage and not for the source; see
# `class_agreement`.
ALLOW_MISSING = 'allow_missing_classes'
# The last sentence of an error of evaluation data in training.
EVALUATE_NOTHING = (
  'Give the section eval_data, whose images are held out, or evaluate nothing '
  'in training with --config.eval.every_steps=0.'
)
_READ_THREADS = 16  # As many reads wait for storage at once as in training.
SOURCES = {
  'tfds': tfds.Tfds,
  'folder': folder.Folder,
  'array_records': array_record.ArrayRecords,
  'archive': npz_dataset.Archive,
  'photographs': sample_photos.Photographs,
  'synthetic': synthetic.Synthetic,
  'parquet': parquet.Parquet,
  'lmdb': lmdb_images.LmdbImages,
  'tfrecords': tfrecords.TFRecords,
  'zip': zip_images.ZipImages,
  'webdataset': webdataset.Webdataset,
  'imagenet_tar': imagenet_tar.ImagenetTar,
  'npz_batches': npz_batches.NpzBatches,
}


def open_source(
  section: ConfigDict | Mapping[str, Any],
  name: str = 'train_data',
  *,
  remedy: str | None = None,
  lists: folder_index.Places | None = None,
) -> Source:
  """Opens the image source that a data section describes.

  Args:
    section: the section `train_data` or `eval_data` of a config.
    name: name of the section, for error messages.
    remedy: last sentence of an error, where no override helps; None names the
      override.
    lists: where the list of a large folder is kept beside the folder itself;
      None is the user's cache.

  Returns:
    A random-access source of labelled images, see `cdm.data.source`.

  Raises:
    ValueError: the section has an unknown kind or key, or its data is missing.
  """
  constructor, given = check_section(name, section)
  path = given.get('path')
  if isinstance(path, str):
    if bucket_folders.is_url(path) and section['kind'] == 'array_records':
      with key_errors.naming(name, given, otherwise=f'{name}.path'):
        bucket.check(path)
    else:
      remote_paths.refuse(path, f'config.{name}.path')
  # An error that names no argument is about the place of the data.
  place = next((key for key in ('path', 'name') if key in given), 'kind')
  lists = lists or folder_index.Places(_user_lists)
  with (
    folder_index.using(lists),
    key_errors.naming(name, given, otherwise=f'{name}.{place}', remedy=remedy),
  ):
    return storage_retry.retried(
      lambda: constructor(**given), f'Opening the data of config.{name}'
    )


def _user_lists():
  return user_cache.folder('pictures')


def open_in_all(
  section: ConfigDict | Mapping[str, Any],
  name: str = 'train_data',
  *,
  workdir: str | os.PathLike[str],
) -> Source:
  """Opens an image source in every process of a run; a collective.

  Process 0 comes first. Of a large folder it walks or reads the list of files,
  and the others take that list without walking.

  Args:
    section: see `open_source`.
    name: see `open_source`.
    workdir: work directory of the run, where the list is kept if the folder
      cannot be written.

  Raises:
    ValueError: see `open_source`.
  """

  def shared():
    return os.path.join(os.fspath(workdir), folder_index.FOLDER)

  if collectives.process_count() == 1:
    return open_source(section, name)
  source, digest = None, None
  if collectives.is_first():
    source = open_source(section, name, lists=folder_index.Places(shared))
    digest = getattr(source, 'listing_digest', None)
  digest = collectives.gather_objects(digest)[0]
  if source is None:
    lists = folder_index.Places(shared, digest)
    source = open_source(section, name, lists=lists)
  return source


def check_section(
  name: str, section: ConfigDict | Mapping[str, Any]
) -> tuple[Callable[..., Source], dict[str, Any]]:
  """Returns the class of source of a data section, and its arguments.

  Args:
    name: name of the section, for error messages.
    section: the section.

  Raises:
    ValueError: the section has an unknown kind or key, or a value of another
      type.
  """
  allows_missing_classes(section, name)
  section = _for_the_source(instantiate.as_dict(name, section))
  constructor = SOURCES[instantiate.kind_of(name, section, SOURCES)]
  return constructor, instantiate.arguments(name, constructor, section)


def allows_missing_classes(
  section: ConfigDict | Mapping[str, Any], name: str = 'train_data'
) -> bool:
  """Returns the key `allow_missing_classes` of a data section.

  Args:
    section: the section; it may leave the key out, which means False.
    name: name of the section, for error messages.

  Raises:
    ValueError: it is neither True nor False.
  """
  value = instantiate.as_dict(name, section).get(ALLOW_MISSING, False)
  value_types.check(f'{name}.{ALLOW_MISSING}', value, bool)
  return value


def open_named(section: Mapping[str, Any]) -> Source:
  """Opens the image source that an argument of a command stands for.

  In contrast to `open_source`, errors do not speak of a config.

  Args:
    section: the kind of the source and the arguments of its constructor.

  Raises:
    ValueError: the data is missing.
  """
  section = _for_the_source(section)
  return SOURCES[section.pop('kind')](**section)


def _for_the_source(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a data section as its source takes it.

  `class_names` may also be a text, see `class_names.parse`.
  """
  section = dict(section)
  section.pop(ALLOW_MISSING, None)
  if isinstance(section.get('class_names'), str):
    section['class_names'] = class_names.parse(section['class_names'])
  return section


class HeldOut(NamedTuple):
  """The chosen evaluation images of a stage, spread evenly over the data.

  Attributes:
    source: the whole evaluation data, see `cdm.data.source`.
    records: indices of the chosen images in `source`.
    read: `(indices in source, rows=None) -> (uint8 [N, H, W, 3], int32 [N])`,
      images and labels; with `rows`, of these positions among the indices
      alone.
  """

  source: Source
  records: list[int]
  read: Callable[..., tuple[np.ndarray, np.ndarray]]


def open_held_out(saved: ConfigDict, count: int) -> HeldOut:
  """Chooses `count` evaluation images of a stage.

  Args:
    saved: config of the stage.
    count: number of images.

  Returns:
    HeldOut.

  Raises:
    ValueError: the data is missing or has fewer than `count` images.
  """
  section = saved.pipeline
  source = open_source(saved.eval_data, 'eval_data')

  def read(indices, rows=None):
    return subset.read_images(
      source,
      list(indices),
      rows,
      image_size=section.image_size,
      crop=section.crop,
      filter=section.filter,
      min_side=section.min_side,
      max_skip_fraction=section.max_skip_fraction,
    )

  return HeldOut(source, subset.spread_indices(source, count), read)


def read_held_out(
  saved: ConfigDict, count: int
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
  """Chooses `count` evaluation images and returns a function that reads them.

  Args:
    saved: config of the stage.
    count: number of images.

  Returns:
    `read(numbers, rows=None) -> (uint8 [N, H, W, 3], int32 [N])`, images and
    labels. A number in [0, count) means the image `HeldOut.records[number]`;
    `rows` is that of `HeldOut.read`.

  Raises:
    ValueError: the data is missing or has fewer than `count` images.
  """
  held_out = open_held_out(saved, count)
  return lambda numbers, rows=None: held_out.read(
    [held_out.records[n] for n in numbers], rows
  )


def open_evaluated(
  saved: ConfigDict, count: int
) -> tuple[Callable[[int], tuple[np.ndarray, int] | None], str]:
  """Chooses `count` images to be evaluated, spread evenly over the data.

  In contrast to `read_held_out`, no other image replaces one that is too small,
  so that no image is evaluated twice.

  Args:
    saved: config of the stage.
    count: number of images to choose, before small ones are left out.

  Returns:
    (read, fingerprint): `read(number)`, with number in [0, count), returns
    (uint8 [H, W, 3], label), or None if that image is smaller than min_side of
    the section `pipeline`. The fingerprint changes whenever the data changes.

  Raises:
    ValueError: the data is missing or has fewer than `count` images.
  """
  section = saved.pipeline
  transforms.check_fit(
    size=section.image_size, crop=section.crop, filter=section.filter
  )
  source = open_source(saved.eval_data, 'eval_data')
  indices = subset.spread_indices(source, count)

  def read(number):
    return _read_image(section, source, indices[number])

  return read, source.fingerprint


class Evaluated(NamedTuple):
  """The chosen evaluation images of a stage, each of which counts once.

  Attributes:
    count: number of images that were chosen.
    read: `(numbers) -> (uint8 [N, H, W, 3], int32 [N], bool [N])`: images,
      labels, and whether the image counts. A number in [0, count) is that of a
      chosen image; images of other numbers, and images that are unreadable or
      smaller than min_side, are black and do not count.
  """

  count: int
  read: Callable[
    [Sequence[int] | np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]
  ]


def open_up_to(saved: ConfigDict, count: int) -> Evaluated:
  """Chooses `count` images to be evaluated in training, or all if fewer.

  In contrast to `open_evaluated`, images may be unreadable, as in training.

  Args:
    saved: config of the stage.
    count: number of images to choose, spread evenly over the data.

  Returns:
    Evaluated. `read` raises ValueError if more of the images than the share
    pipeline.max_skip_fraction are unreadable.

  Raises:
    ValueError: the data is missing or empty.
  """
  section = saved.pipeline
  transforms.check_fit(
    size=section.image_size, crop=section.crop, filter=section.filter
  )
  source = open_source(saved.eval_data, 'eval_data', remedy=EVALUATE_NOTHING)
  count = min(count, len(source))
  indices = subset.spread_indices(source, count)

  def read_one(number):
    if number >= count:
      return None
    try:
      return _read_image(section, source, indices[number])
    except transforms.BadImage as error:
      return error

  def read(numbers):
    side = section.image_size
    images = np.zeros((len(numbers), side, side, 3), np.uint8)
    labels = np.zeros(len(numbers), np.int32)
    there = np.zeros(len(numbers), bool)
    bad = []
    with concurrent.futures.ThreadPoolExecutor(_READ_THREADS) as threads:
      found = threads.map(read_one, map(int, numbers))
      for i, element in enumerate(found):
        if isinstance(element, transforms.BadImage):
          bad.append(element)
        elif element is not None:
          (images[i], labels[i]), there[i] = element, True
    if len(bad) > section.max_skip_fraction * len(numbers):
      raise damaged_file.reworded(
        bad[0],
        f'config.eval_data: {len(bad)} of {len(numbers)} images cannot be '
        f'read, more than pipeline.max_skip_fraction = '
        f'{section.max_skip_fraction} allows. The first: {bad[0]}',
      ) from bad[0]
    return images, labels, there

  return Evaluated(count, read)


def training_batches(
  c: ConfigDict,
  source: Any,
  *,
  seed: int,
  rows: Sequence[int] | np.ndarray | None = None,
) -> pipeline.Batches:
  """Returns an endless, shuffled iterator over this process's batches.

  Args:
    c: config of one stage.
    source: its training data, see `open_source`.
    seed: seed of the order, flips and crops.
    rows: indices within the global batch of the images that this process
      reads; None reads the whole batch.
  """
  options = instantiate.splat('pipeline', pipeline.PipelineOptions, c.pipeline)
  with key_errors.naming('pipeline', options._fields):
    return pipeline.make_iterator(
      source, options, batch_size=c.train.batch_size, seed=seed, rows=rows
    )


def _read_image(section, source, index):
  """Reads an image as a `pipeline` section says; see `subset.read_image`."""
  return subset.read_image(
    source,
    index,
    image_size=section.image_size,
    crop=section.crop,
    filter=section.filter,
    min_side=section.min_side,
  )
