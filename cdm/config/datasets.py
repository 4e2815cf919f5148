"""Opens the data sets of a config."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cdm.config import (
  facial_priors,
  instantiate,
  key_errors,
  recognized_source,
  value_types,
)
from cdm.data import (
  array_patches,
  array_record,
  class_names,
  data_origin,
  folder,
  folder_index,
  npz_dataset,
  photo_crops,
  pipeline,
  record_stream,
  sample_photos,
  source_check,
  synthetic,
  tfds,
)
from cdm.data.files import storage_retry
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
  exit_codes,
  remote_paths,
  user_cache,
)

# Keys of every data section, for the stage and not for the source; see
# `class_agreement`, `data_origin` and `facial_priors`.
ALLOW_MISSING = 'allow_missing_classes'
_NOT_OF_THE_SOURCE = (
  ALLOW_MISSING,
  data_origin.DATA_SET,
  *facial_priors.KEYS,
)
# The last sentence of an error of evaluation data in training.
EVALUATE_NOTHING = (
  'Give the section eval_data, whose images are held out, or evaluate nothing '
  'in training with --config.eval.every_steps=0.'
)
SOURCES = {
  'tfds': tfds.Tfds,
  'folder': folder.Folder,
  'array_records': array_record.ArrayRecords,
  'archive': npz_dataset.Archive,
  'photographs': sample_photos.Photographs,
  'photo_crops': photo_crops.PhotoCrops,
  'synthetic': synthetic.Synthetic,
  'parquet': parquet.Parquet,
  'lmdb': lmdb_images.LmdbImages,
  'tfrecords': tfrecords.TFRecords,
  'zip': zip_images.ZipImages,
  'webdataset': webdataset.Webdataset,
  'imagenet_tar': imagenet_tar.ImagenetTar,
  'npz_batches': npz_batches.NpzBatches,
  'arrays': array_patches.ArrayPatches,
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
    section: the section `train_data` or `eval_data` of a config: the `kind`,
      the arguments of its class in `SOURCES`, and for all kinds
      `allow_missing_classes` (False), see `class_agreement`, `data_set` (''),
      see `data_origin`, and what `facial_priors` opens. `class_names` may also
      be a text, see `class_names.parse`.
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
    try:
      return storage_retry.retried(
        lambda: constructor(**given), f'Opening the data of config.{name}'
      )
    except ValueError as error:
      other = _other_kind(section['kind'], path)
      if other is None:
        raise
      raise ValueError(
        f'{path!r} is not of the kind {section["kind"]!r}, but of the kind '
        f'{other!r} ({error}). Set --config.{name}.kind={other}.'
      ) from error


def _other_kind(kind, path):
  """Returns the kind of data at a path, or None if it is this or unknown."""
  if not isinstance(path, str) or bucket_folders.is_url(path):
    return None
  if kind == 'arrays':  # An .npz may hold either.
    return None
  found = recognized_source.kind_of(os.path.expanduser(path), SOURCES)
  # Any folder may be called one of pictures.
  return None if found in (kind, 'folder') else found


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
  stated = instantiate.as_dict(name, section).get(data_origin.DATA_SET, '')
  value_types.check(f'{name}.{data_origin.DATA_SET}', stated, str)
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


def keys_of(section: ConfigDict | Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the keys that a data section may have besides its kind.

  There are none if the kind is unknown.
  """
  constructor = SOURCES.get(str(section.get('kind')))
  return tuple(inspect.signature(constructor).parameters) if constructor else ()


def image_dtype(c: ConfigDict) -> Any:
  """Returns the dtype of the images that a stage is trained on."""
  source = SOURCES.get(str(c.train_data.get('kind')))
  return record_stream.image_dtype(source)


def input_shapes(
  section: ConfigDict | Mapping[str, Any], image_size: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
  """Returns {name: (shape, dtype)} of what a record holds beside its image.

  Args:
    section: a data section.
    image_size: S, pixels.
  """
  source = SOURCES.get(str(section.get('kind')))
  return record_stream.input_shapes(source, image_size)


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
  for key in _NOT_OF_THE_SOURCE:
    section.pop(key, None)
  if isinstance(section.get('class_names'), str):
    section['class_names'] = class_names.parse(section['class_names'])
  return section


def pipeline_options(c: ConfigDict) -> pipeline.PipelineOptions:
  """Returns the section `pipeline` of a stage, with what it leaves out.

  Raises:
    ValueError: the section has an unknown key, or a value of another type.
  """
  return instantiate.splat('pipeline', pipeline.PipelineOptions, c.pipeline)


def check_images(
  source: Source, options: pipeline.PipelineOptions, name: str
) -> None:
  """Refuses data that does not suit the pipeline, see `source_check`.

  Raises:
    ValueError: it does not suit.
    exit_codes.DataError: its first images cannot be read.
  """
  try:
    with key_errors.naming('pipeline', options._fields):
      source_check.check(
        source,
        size=options.image_size,
        crop=options.crop,
        filter=options.filter,
        allow_enlarging=options.allow_enlarging,
        name=f'config.{name}',
      )
  except Exception as error:
    bad_input = exit_codes.classify(error) is exit_codes.BAD_INPUT
    if bad_input and isinstance(error, ValueError):
      raise
    raise exit_codes.data_error(
      f'The first images of config.{name} could not be read', error
    ) from error


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

  Raises:
    ValueError: the data do not suit the stage.
  """
  options = pipeline_options(c)
  with folder_index.using(folder_index.Places(_user_lists)):
    with_maps = storage_retry.retried(
      lambda: facial_priors.with_maps(c, source), 'Opening the maps of faces'
    )
  with key_errors.naming('pipeline', options._fields):
    iterator = pipeline.make_iterator(
      with_maps, options, batch_size=c.train.batch_size, seed=seed, rows=rows
    )
  check_images(source, options, 'train_data')
  return iterator
