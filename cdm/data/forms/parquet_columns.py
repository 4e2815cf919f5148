"""Chooses the columns of a Parquet file that hold images, names and labels.

The copies of Hugging Face have a column `image` with the fields `bytes` and
`path`, and a column `label` whose class names are in the file's metadata. Other
writers have plain columns of bytes, of numbers and of texts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

from cdm.data.files import json_file
from cdm.data.printable_name import printable
from cdm.data.source import first_names

_METADATA = b'huggingface'
_BYTES, _PATH = '.bytes', '.path'
_USUAL_LABEL = 'label'


class _Info(TypedDict):
  features: NotRequired[dict[str, Any]]


class _HuggingFace(TypedDict):
  """What the library `datasets` writes into the metadata of a file."""

  info: NotRequired[_Info]


class Columns(NamedTuple):
  """The columns that are read, by their dotted paths.

  Attributes:
    image: of the image files.
    name: of the names of their original files; None without.
    label: None without.
    is_text: whether the labels are texts, the names of the classes.
    class_names: the names of the labels 0, 1, ...; None if the file has none.
  """

  image: str
  name: str | None
  label: str | None
  is_text: bool
  class_names: tuple[str, ...] | None


def choose(
  path: str,
  file: Any,
  wanted: Sequence[str] = (),
  *,
  with_labels: bool = True,
) -> Columns:
  """Returns the columns of an open `pyarrow.parquet.ParquetFile`.

  Args:
    path: path of the file, for errors.
    file: the file.
    wanted: dotted path of the column of images, without its field `bytes`, and
      that of the labels. Otherwise the only column of images is taken, and for
      labels the only one with class names, or else the one called 'label'.
    with_labels: whether labels are needed.

  Raises:
    ValueError: there is no such column, or several.
    DamagedFile: the metadata of Hugging Face is damaged.
  """
  if len(wanted) > 2:
    raise ValueError(
      f'columns has {len(wanted)} names; give that of the images and that of '
      'the labels.'
    )
  image_key, label_key = (*wanted, None, None)[:2]
  kinds = _kinds(file)
  features = _features(path, file)
  images = [leaf for leaf, kind in kinds.items() if kind == 'bytes']
  keys = {leaf.removesuffix(_BYTES): leaf for leaf in images}
  found = _only(path, kinds, keys, image_key, 'images')
  image = keys[found]
  name = found + _PATH if kinds.get(found + _PATH) == 'text' else None
  label = None
  if with_labels:
    label = _choose_label(path, kinds, features, label_key, found)
  names = features.get(label) if label else None
  is_text = label is not None and kinds[label] == 'text'
  return Columns(image, name, label, is_text, names)


def _kinds(file):
  """Returns {dotted path: 'bytes', 'text', 'number' or 'other'} of columns."""
  kinds = {}
  for n in range(len(file.schema)):
    column = file.schema.column(n)
    logical = column.logical_type.type
    kind = 'other'
    # Lists have values of their own number.
    if column.max_repetition_level == 0:
      if column.physical_type in ('INT32', 'INT64'):
        kind = 'number' if logical in ('NONE', 'INT') else 'other'
      elif column.physical_type == 'BYTE_ARRAY':
        kind = {'NONE': 'bytes', 'STRING': 'text'}.get(logical, 'other')
    kinds[column.path] = kind
  return kinds


def _features(path, file) -> dict[str, tuple[str, ...]]:
  """Returns {dotted path: class names} of the columns that have class names."""
  metadata = (file.metadata.metadata or {}).get(_METADATA)
  if metadata is None:
    return {}
  parsed = json_file.parse(
    metadata,
    _HuggingFace,
    name=f'The metadata {_METADATA.decode()!r} of {printable(path)}',
    remedy='Download the file again.',
  )
  return dict(_named(parsed.get('info', {}).get('features', {}), ''))


def _named(features, prefix):
  """Yields (dotted path, class names) of nested features."""
  for key, feature in features.items():
    if not isinstance(feature, dict):
      continue
    names = feature.get('names')
    if feature.get('_type') != 'ClassLabel':
      yield from _named(feature, f'{prefix}{key}.')
    elif isinstance(names, list) and all(isinstance(n, str) for n in names):
      yield prefix + key, tuple(names)


def _choose_label(path, kinds, features, label_key, image):
  usable = [k for k, kind in kinds.items() if kind in ('number', 'text')]
  if label_key is not None:
    return _only(path, kinds, usable, label_key, 'labels', image)
  classes = [key for key in features if kinds.get(key) == 'number']
  if classes:
    return _only(path, kinds, classes, None, 'labels', image)
  return _USUAL_LABEL if _USUAL_LABEL in usable else None


def _only(path, kinds, keys, wanted, what, image=None):
  """Returns the column that is asked for, or the only one."""
  keys: Sequence[str] = tuple(keys)
  if wanted is None and len(keys) == 1:
    return keys[0]
  if wanted in keys:
    return wanted
  where = printable(path)
  if wanted is not None:
    raise ValueError(
      f'{where} has no column {wanted!r} of {what}; it has the columns '
      f'{first_names(tuple(kinds))}, of which {keys or "none"} can hold {what}.'
    )
  if not keys:
    raise ValueError(
      f'{where} has no column of {what}; it has the columns '
      f'{first_names(tuple(kinds))}. A column of image files, or one with the '
      'fields bytes and path, was expected.'
    )
  columns = (keys[0],) if image is None else (image, keys[0])
  raise ValueError(
    f'{where} has several columns of {what}, {first_names(keys)}. Choose one '
    f'with columns={columns!r}.'
  )
