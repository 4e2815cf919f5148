"""Reads any image data set of tensorflow-datasets (TFDS) as a source."""

import contextlib
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import sys
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from cdm.data import (
  class_labels,
  image_decoder,
  shell_commands,
  tfds_versions,
  transforms,
)
from cdm.data.encoded_files import Encoded, EncodedFiles
from cdm.data.error_line import first_line
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.shard_records import Part, ShardRecords


class Tfds(EncodedFiles):
  """A source of one split of a TFDS data set, prepared as ArrayRecord.

  Reading needs tensorflow-datasets, but not TensorFlow. Images are decoded by
  `image_decoder` instead of TFDS, so damaged ones are skipped as they are
  in every other source.

  Labels are those of the data set, with one exception: if all class names are
  WordNet ids, label n is the n-th id in sorted order. imagenet2012 has that
  order already, but imagenet_resized does not, and the stages of a cascade that
  read both must agree on what class 7 is.
  """

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
    exif_rotation: bool = True,
  ):
    """Opens a prepared data set.

    Args:
      name: the name in TFDS: 'imagenet2012', 'imagenet_resized/64x64',
        'celeb_a_hq/256', 'lsun/bedroom:3.1.0', ...
      split: 'train', 'validation', 'train[:1%]', ...
      data_dir: the folder where TFDS keeps data sets; None is TFDS's default.
      image_key: the image feature; None takes the only one, or the one called
        'image'.
      label_key: the class feature; None takes the only one, or the one called
        'label'. A data set without class features has no labels.
      max_pixels, max_value, exif_rotation: see `folder.Folder`. The decoders
        of TFDS do not apply the EXIF orientation.

    Raises:
      ValueError: the data set, split or feature does not exist; or the data set
        is not prepared, or prepared in a format without random access. The
        messages for the last two give the command to run.
    """
    self._limits = image_decoder.check_limits(
      max_pixels, max_value, exif_rotation
    )
    self._arguments = (
      name, split, data_dir, image_key, label_key, max_pixels, max_value,
      exif_rotation,
    )  # fmt: skip
    tfds = import_library()
    builder = _open_builder(tfds, name, data_dir)
    try:
      builder.info.splits[split]
    except (KeyError, ValueError, AssertionError, TypeError) as error:
      reason = str(error).strip().partition('\n')[0][:200]
      raise ValueError(f'{name!r} has no split {split!r}: {reason}') from error
    features = builder.info.features
    self._image_key = _choose_image(tfds, features, name, image_key)
    self._label_key = _choose_label(tfds, features, name, label_key)
    names = features[self._label_key].names if self._label_key else ()
    self.class_names, self._new_label = in_order_of_ids(names)
    self.num_classes = len(self.class_names)
    self._name = f'{builder.info.full_name}/{split}'
    text = {k for k, f in features.items() if isinstance(f, tfds.features.Text)}
    self._file_key = next((key for key in _FILE_KEYS if key in text), None)
    with _refusing_damage(builder.data_dir):
      self._records = builder.as_data_source(
        split,
        decoders={self._image_key: tfds.decode.SkipDecoding()},
        file_format='array_record',
      )
      _keep_few_open(self._records, split)
    if not len(self._records):
      raise ValueError(f'{self._name} is empty.')

  def __reduce__(self) -> tuple:
    # A worker process opens the data set again.
    return type(self), self._arguments

  def __len__(self) -> int:
    return len(self._records)

  @property
  def fingerprint(self) -> str:
    """The data set's full name and split, with a hash of length and keys."""
    made_from = (self._name, len(self), self._image_key, self._label_key)
    if self._limits.get('max_value') is not None:
      made_from += (self._limits['max_value'],)
    if not self._limits.get('exif_rotation', True):
      made_from += ('exif_rotation False',)
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()
    return f'tfds:{self._name}:{digest[:16]}'

  def file_names(self) -> list[str] | None:
    """Returns the name of each image's original file, by reading all records.

    Returns None if the data set does not store such names.
    """
    if not self._file_key:
      return None
    return [
      self._records[i][self._file_key].decode(errors='replace')
      for i in range(len(self))
    ]

  def example(self, i: int) -> dict[str, Any]:
    """Returns all features of record i, with the image as it is stored.

    Raises:
      transforms.BadImage: the record is damaged.
    """
    try:
      return self._records[i]
    except IndexError:
      raise
    except Exception as error:  # the library's own, of several types
      if not_of_the_file(error):
        raise
      reason = str(error).splitlines()[0][:200]
      raise transforms.BadImage(
        f'{self._name}[{i}]',
        f'its record is damaged ({reason}); build the data set again',
      ) from error

  def encoded(self, i: int) -> Encoded:
    """Returns image i as it is stored."""
    name, example = f'{self._name}[{i}]', self.example(i)
    if self._file_key:
      name += f' {example[self._file_key].decode(errors="replace")}'
    label = int(example[self._label_key]) if self._label_key else 0
    # The label is -1 in a split that withholds its labels.
    if label >= 0 and self._new_label is not None:
      label = self._new_label[label]
    return Encoded(example[self._image_key], name, label)


# The Pythons from this one on have no release of TensorFlow, which builds data
# sets; pyproject.toml says the same.
_NO_TENSORFLOW = (3, 14)
_TARS_TOO = (
  "ImageNet's tars are also read as they are, and nothing is built: give "
  'ILSVRC2012_img_train.tar as --source of `cdm prepare`, or set '
  '--config.train_data.kind=imagenet_tar and --config.train_data.path. To '
  'build: '
)
_FILE_KEYS = ('file_name', 'filename', 'image/filename', 'id')


def in_order_of_ids(
  names: Sequence[str],
) -> tuple[tuple[str, ...], np.ndarray | None]:
  """Sorts class names if all are WordNet ids, and returns their new labels.

  Args:
    names: n class names in the order of their labels.

  Returns:
    (sorted names, [n] int32 with the new label of every old one), or
    (names, None) if they are not WordNet ids.
  """
  stored = class_labels.Labels(
    np.arange(len(names), dtype=np.int32), tuple(names)
  )
  found = class_labels.in_order_of_ids(stored)
  return found.class_names, None if found is stored else found.values


def import_library() -> Any:
  """Returns the module tensorflow_datasets.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    command = shell_commands.install(
      'tensorflow-datasets', 'importlib-resources'
    )
    raise ValueError(
      f'Reading a TFDS data set needs tensorflow-datasets ({error}). Run: '
      f'{command}'
    ) from error
  return tfds


def _keep_few_open(records, split):
  """Makes TFDS read its shards so that few of them are open at a time."""
  info = getattr(records, 'dataset_info', None)
  if info is None:
    return  # It reads no shards.
  instructions = info.splits[split].file_instructions
  records.data_source = ShardRecords(
    [Part(os.fspath(i.filename), i.take, i.skip) for i in instructions]
  )


def _damaged(name: str, error: Exception) -> DamagedFile:
  return DamagedFile(
    f'TFDS cannot open {name[:200]!r} ({first_line(error)}). Check its config '
    'and version; if they are right, move its files away and build them again.'
  )


def new_builder(
  tfds: Any, name: str, data_dir: str | os.PathLike[str] | None
) -> Any:
  """Returns the builder of a data set, which may not be prepared.

  Raises:
    ValueError: TFDS knows no such data set, config or version.
    DamagedFile: its files are damaged.
  """
  try:
    return tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as error:
    nearest = re.search(r'Did you mean: .*-> (\S+)', str(error))
    hint = f'; did you mean {nearest[1]!r}?' if nearest else '.'
    raise ValueError(f'TFDS knows no data set {name[:200]!r}{hint}') from error
  except MemoryError:
    raise
  # What TFDS raises for a name that is none, an unknown config or version. A
  # JSON error is a ValueError too, but speaks of a damaged file.
  except (
    ValueError,
    AssertionError,
    TypeError,
    KeyError,
    ImportError,  # of a package that a data set needs
  ) as error:
    if isinstance(error, json.JSONDecodeError):
      raise _damaged(name, error) from error
    place = tfds_versions.folder_of(tfds, name, data_dir)
    if help_for_old := tfds_versions.without_features(place, name):
      raise ValueError(help_for_old) from error
    raise ValueError(
      f'TFDS cannot open {name[:200]!r} ({first_line(error)}); give NAME, '
      'NAME/CONFIG or NAME:VERSION of a data set that it knows.'
    ) from error
  except Exception as error:  # TFDS raises several types
    if not_of_the_file(error):
      raise
    raise _damaged(name, error) from error


def _open_builder(tfds, name, data_dir):
  """Returns the builder of a data set that is prepared for random access."""
  builder = new_builder(tfds, name, data_dir)
  if not builder.is_prepared():
    raise ValueError(_not_prepared(builder, name, data_dir))
  if help_for_old := tfds_versions.without_features(builder.data_dir, name):
    raise ValueError(help_for_old)
  # The builder is made from the data set's files and not from its code, because
  # only then does TFDS see a format that was added by conversion.
  with _refusing_damage(builder.data_dir):
    on_disk = tfds.builder_from_directory(builder.data_dir)
  formats = {f.value for f in on_disk.info.available_file_formats()}
  if 'array_record' in formats:
    return on_disk
  if 'tfrecord' not in formats:
    raise ValueError(
      f'{name!r} in {builder.data_dir} is prepared as {sorted(formats)}, which '
      f'cdm does not read. Move it away and build it again. '
      f'{tensorflow_first()}Run: {_build_command(name, data_dir)}'
    )
  command = shell_commands.run(
    '-m', 'cdm.data.convert_tfrecord', str(builder.data_dir)
  )
  raise ValueError(
    f'{name!r} in {builder.data_dir} is prepared as TFRecord, which has no '
    f'random access. Convert it, beside the old files, with: {command}'
  )


@contextlib.contextmanager
def _refusing_damage(folder) -> Generator[None, None, None]:
  """Context manager in which damaged files of a data set become one error."""
  try:
    yield
  except (ImportError, MemoryError):
    raise
  except Exception as error:  # TFDS raises several types
    if not_of_the_file(error):
      raise
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    raise DamagedFile(
      f'The data set in {folder} is damaged ({reason}). Move it away and build '
      'it again.'
    ) from error


def _not_prepared(builder, name, data_dir):
  manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  first = ''
  if manual:
    folder = pathlib.Path(builder.data_dir_root) / 'downloads' / 'manual'
    first = f'First, in {folder}: {" ".join(manual.split())} Then: '
    if builder.name == 'imagenet2012':
      first = f'{_TARS_TOO}{first}'
  other = tfds_versions.other_version(name, builder)
  return (
    f'{name!r} is not prepared: {builder.data_dir} has no data. {other}{first}'
    f'{tensorflow_first()}Build it with: {_build_command(name, data_dir)}'
  )


def tensorflow_first() -> str:
  """Returns what must be done before a data set can be built, or ''."""
  if importlib.util.find_spec('tensorflow') is not None:
    return ''
  if sys.version_info >= _NO_TENSORFLOW:
    version = '.'.join(map(str, sys.version_info[:2]))
    return (
      'Building needs TensorFlow, which has no release for Python '
      f'{version} (only a release candidate, 2.22.0rc0, in November 2026): '
      'build it with Python 3.13 and read it with this one. '
    )
  command = shell_commands.install('cdm[tensorflow]')
  return f'Building needs TensorFlow, which {command} installs. '


def _build_command(name, data_dir):
  where = [] if data_dir is None else [os.fspath(data_dir)]
  return shell_commands.run('-m', 'cdm.data.build_tfds', name, *where)


def _choose_image(tfds, features, name, key):
  kind = tfds.features.Image
  keys = [k for k, f in features.items() if isinstance(f, kind)]
  keys = [k for k in keys if features[k].np_dtype in (np.uint8, np.uint16)]
  return _choose(keys, key, f'{name!r} has images {keys}', usual='image')


def _choose_label(tfds, features, name, key):
  kind = tfds.features.ClassLabel
  keys = [k for k, f in features.items() if isinstance(f, kind)]
  if not keys and key is None:
    return None
  return _choose(keys, key, f'{name!r} has classes {keys}', usual='label')


def _choose(keys, key, known, *, usual):
  if key is None and len(keys) == 1:
    return keys[0]
  key = usual if key is None else key
  if key not in keys:
    raise ValueError(
      f'{known}, and {key!r} is none of them. Choose one with '
      f'{usual}_key, or another data set.'
    )
  return key
