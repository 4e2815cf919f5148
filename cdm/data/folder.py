"""Random-access sources of images: a folder, TFDS, or prepared ArrayRecord.

A source has a length, and source[i] is

  {'image': uint8 [H, W, 3], 'label': int32, 'short_side': int32}

where `short_side` is that of the image as it was first stored. An unusable
image raises `transforms.BadImage`, which the pipeline counts. `num_classes` and
`class_names` belong to the labels (0 and () if there are none: every label is
then 0), `fingerprint` changes when the images do. Sources can be pickled, and
are read by several threads at once. Photographs and synthetic images have the
same shape and live in `photographs` and `synthetic`.
"""

import functools
import hashlib
import os
import pathlib
import re
import shlex

import numpy as np

from cdm.data import record_format, transforms

EXTENSIONS = (
  '.avif', '.bmp', '.gif', '.jfif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm',
  '.tif', '.tiff', '.webp',
)  # fmt: skip


def _element(image, label):
  short_side = np.int32(min(image.shape[:2]))
  return {'image': image, 'label': np.int32(label), 'short_side': short_side}


class Folder:
  """Image files of a folder and everything below it, in order of their paths.

  Files and folders whose names start with a dot are left out.
  """

  def __init__(self, path, class_names=None):
    """Lists the files.

    Args:
      path: the folder.
      class_names: which first-level sub-folders are the classes 0, 1, 2, ...
        None: all of them, sorted, if there are any; give the names where two
        folders must agree although one lacks a class. (): no classes, the
        sub-folders mean nothing (FFHQ's thousands).

    Raises:
      ValueError: no such folder, no image in it, or images outside the classes.
    """
    self.path = os.path.expanduser(path)
    if not os.path.isdir(self.path):
      raise ValueError(f'{self.path!r} is not a folder of images.')
    self.files = tuple(sorted(_image_files(self.path)))
    if not self.files:
      raise ValueError(
        f'The folder {self.path!r} has no images: no file below it ends in one '
        f'of {" ".join(EXTENSIONS)}.'
      )
    folders = [f.split('/', 1)[0] if '/' in f else None for f in self.files]
    if class_names is None:
      class_names = sorted({f for f in folders if f is not None})
    self.class_names = tuple(class_names)
    self.num_classes = len(self.class_names)
    self.labels = self._label(folders)

  def _label(self, folders):
    if not self.class_names:
      return np.zeros(len(folders), np.int32)
    number = {name: i for i, name in enumerate(self.class_names)}
    for file, folder in zip(self.files, folders, strict=True):
      if folder not in number:
        raise ValueError(
          f'{self.path}/{file} lies in none of the {len(number)} class '
          f'folders {_some(self.class_names)}. Move it, name its folder in '
          f'class_names, or ignore the folders with class_names=().'
        )
    return np.array([number[folder] for folder in folders], np.int32)

  def __len__(self):
    return len(self.files)

  @functools.cached_property
  def fingerprint(self):
    """Of paths and sizes: reading every byte would take as long as an epoch."""
    digest = hashlib.sha256(repr(self.class_names).encode())
    for file in self.files:
      size = os.stat(os.path.join(self.path, file)).st_size
      digest.update(f'{file}\0{size}\n'.encode(errors='surrogateescape'))
    return f'folder:{digest.hexdigest()[:16]}'

  def file_names(self):
    """-> paths below the folder, in order."""
    return self.files

  def __getitem__(self, i):
    path = os.path.join(self.path, self.files[i])
    try:
      data = pathlib.Path(path).read_bytes()
    except OSError as error:
      raise transforms.BadImage(path, f'cannot be read: {error}') from error
    return _element(transforms.decode(data, name=path), self.labels[i])


def _image_files(root):
  """Yields paths below root, relative to it, with forward slashes."""
  for folder, folders, files in os.walk(root, followlinks=True):
    folders[:] = [f for f in folders if not f.startswith(('.', '__MACOSX'))]
    for file in files:
      if file.lower().endswith(EXTENSIONS) and not file.startswith('.'):
        path = os.path.relpath(os.path.join(folder, file), root)
        yield path.replace(os.sep, '/')


def _some(names):
  shown = ', '.join(map(repr, names[:5]))
  return f'({shown}{", ..." if len(names) > 5 else ""})'


class ArrayRecords:
  """What `cdm prepare` wrote: pixels cropped and resized already."""

  def __init__(self, path):
    """Reads the index.

    Args:
      path: folder of a prepared data set.

    Raises:
      ValueError: there is none, it is unfinished, or files are missing.
    """
    self.path = os.path.expanduser(path)
    index = record_format.read_index(self.path)
    if index is None:
      raise ValueError(
        f'{self.path!r} is no prepared data set: it has no '
        f'{record_format.INDEX}. '
        f'Make one with: cdm prepare --source=... --size=... --out={self.path}'
      )
    if not index['complete']:
      done = sum(shard['records'] for shard in index['shards'])
      raise ValueError(
        f'{self.path!r} is unfinished, {done} of {index["recipe"]["records"]} '
        f'records. Run the same cdm prepare again: it continues there.'
      )
    self.index = index
    self.image_size = index['recipe']['size']
    self.class_names = tuple(index['class_names'])
    self.num_classes = len(self.class_names)
    self.fingerprint = f'prepared:{index["fingerprint"]}'
    self._paths = [os.path.join(self.path, s['file']) for s in index['shards']]
    for path in self._paths:
      if not os.path.exists(path):
        raise ValueError(f'{path} is missing; run the same cdm prepare again.')
    self._records = _array_record_source(self._paths)
    if len(self._records) != index['recipe']['records']:
      raise ValueError(
        f'{self.path!r} has {len(self._records)} records, its index says '
        f'{index["recipe"]["records"]}; delete it and prepare it again.'
      )

  def __len__(self):
    return len(self._records)

  def __getitem__(self, i):
    return record_format.unpack(self._records[i], name=f'{self.path}[{i}]')


def _array_record_source(paths):
  try:
    from array_record.python import array_record_data_source
  except ImportError as error:
    raise ValueError(
      'Reading ArrayRecord needs the package array-record (Linux only): '
      'pip install array-record. Elsewhere, train from a folder of images.'
    ) from error
  return array_record_data_source.ArrayRecordDataSource(paths)


class Tfds:
  """Any image data set of tensorflow-datasets, prepared as ArrayRecord.

  Only tensorflow-datasets itself is needed to read, not TensorFlow. Images are
  decoded here, not there, so damaged ones are skipped as everywhere else.

  Labels are those of the data set, with one exception: if all class names are
  WordNet ids, labels count them in sorted order. imagenet2012 has that order
  already, imagenet_resized does not, and the stages of a cascade that read
  both must agree on what class 7 is.
  """

  def __init__(
    self, name, split, data_dir=None, image_key=None, label_key=None
  ):
    """Opens a prepared data set.

    Args:
      name: as TFDS has it: 'imagenet2012', 'imagenet_resized/64x64',
        'celeb_a_hq/256', 'lsun/bedroom:3.1.0', ...
      split: 'train', 'validation', 'train[:1%]', ...
      data_dir: where TFDS keeps data sets; None is its own default.
      image_key: the image feature; None where there is one, or one 'image'.
      label_key: the class feature; None where there is one, or one 'label', or
        none at all.

    Raises:
      ValueError: no such data set, split or feature; not prepared; or prepared
        in a format without random access. The last two name the command.
    """
    self._arguments = (name, split, data_dir, image_key, label_key)
    tfds = _import_tfds()
    builder = _open_builder(tfds, name, data_dir)
    try:
      builder.info.splits[split]
    except (KeyError, ValueError) as error:
      raise ValueError(f'{name!r} has no split {split!r}: {error}') from error
    features = builder.info.features
    self._image_key = _choose_image(tfds, features, name, image_key)
    self._label_key = _choose_label(tfds, features, name, label_key)
    names = features[self._label_key].names if self._label_key else ()
    self.class_names, self._new_label = sorted_wordnet(names)
    self.num_classes = len(self.class_names)
    self._name = f'{builder.info.full_name}/{split}'
    text = {k for k, f in features.items() if isinstance(f, tfds.features.Text)}
    self._file_key = next((key for key in _FILE_KEYS if key in text), None)
    self._records = builder.as_data_source(
      split,
      decoders={self._image_key: tfds.decode.SkipDecoding()},
      file_format='array_record',
    )
    if not len(self._records):
      raise ValueError(f'{self._name} is empty.')

  def __reduce__(self):  # opened again in a worker process
    return type(self), self._arguments

  def __len__(self):
    return len(self._records)

  @property
  def fingerprint(self):
    made_from = (self._name, len(self), self._image_key, self._label_key)
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()
    return f'tfds:{self._name}:{digest[:16]}'

  def file_names(self):
    """-> names of the files that records were made of, or None; reads all."""
    if not self._file_key:
      return None
    return [
      self._records[i][self._file_key].decode(errors='replace')
      for i in range(len(self))
    ]

  def __getitem__(self, i):
    example = self._records[i]
    name = f'{self._name}[{i}]'
    if self._file_key:
      name += f' {example[self._file_key].decode(errors="replace")}'
    label = int(example[self._label_key]) if self._label_key else 0
    if label >= 0 and self._new_label is not None:  # -1: a split without labels
      label = self._new_label[label]
    data = example[self._image_key]
    return _element(transforms.decode(data, name=name), label)


_FILE_KEYS = ('file_name', 'filename', 'image/filename', 'id')


def sorted_wordnet(names):
  """Class names, and the label of each in sorted order if all are WordNet ids.

  Args:
    names: n class names in the order of their labels.

  Returns:
    (names, None), or (sorted names, [n] int32: new label of every old one).
  """
  if not names or not all(re.fullmatch(r'n\d{8}', name) for name in names):
    return tuple(names), None
  return tuple(sorted(names)), np.argsort(np.argsort(names)).astype(np.int32)


def _import_tfds():
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ValueError(
      f'Reading a TFDS data set needs tensorflow-datasets ({error}). Run: '
      f'pip install tensorflow-datasets importlib-resources'
    ) from error
  return tfds


def _open_builder(tfds, name, data_dir):
  """The builder of a data set that is there and can be read at random."""
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as error:
    nearest = re.search(r'Did you mean: .*-> (\S+)', str(error))
    hint = f'; did you mean {nearest[1]!r}?' if nearest else '.'
    raise ValueError(f'TFDS knows no data set {name!r}{hint}') from error
  if not builder.is_prepared():
    raise ValueError(_not_prepared(builder, name, data_dir))
  # From its files rather than its code: only so does TFDS see a format that
  # was added by conversion.
  found = tfds.builder_from_directory(builder.data_dir)
  formats = {f.value for f in found.info.available_file_formats()}
  if 'array_record' in formats:
    return found
  if 'tfrecord' not in formats:
    raise ValueError(
      f'{name!r} in {builder.data_dir} is prepared as {sorted(formats)}, which '
      f'is not read here. Move it away and build it: '
      f'{_build_command(name, data_dir)}'
    )
  raise ValueError(
    f'{name!r} in {builder.data_dir} is prepared as TFRecord, which has no '
    f'random access. Convert it, beside the old files, with: '
    f'python -m cdm.data.convert_tfrecord {shlex.quote(str(builder.data_dir))}'
  )


def _not_prepared(builder, name, data_dir):
  manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  first = ''
  if manual:
    folder = pathlib.Path(builder.data_dir_root) / 'downloads' / 'manual'
    first = f'First, in {folder}: {" ".join(manual.split())} Then: '
  return (
    f'{name!r} is not prepared: {builder.data_dir} has no data. {first}'
    f'Build it with: {_build_command(name, data_dir)}'
  )


def _build_command(name, data_dir):
  where = '' if data_dir is None else f', data_dir={os.fspath(data_dir)!r}'
  code = (
    f'import tensorflow_datasets as tfds; tfds.builder({name!r}{where}, '
    f"file_format='array_record').download_and_prepare()"
  )
  readable = not set('"$`\\') & set(code)
  return f'python -c "{code}"' if readable else f'python -c {shlex.quote(code)}'


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


def _choose(keys, key, what_there_is, *, usual):
  if key is None and len(keys) == 1:
    return keys[0]
  key = usual if key is None else key
  if key not in keys:
    raise ValueError(
      f'{what_there_is}, and {key!r} is none of them. Choose one with '
      f'{usual}_key, or another data set.'
    )
  return key
