"""Lists the records of Parquet files, with their labels and names.

Only the directories of the files and two narrow columns are read, never the
images. ImageNet's copy of Hugging Face names its classes in words. Where the
original file names tell their WordNet ids, these take the place of the words.
"""

import functools
import json
import re
from collections.abc import Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from cdm.data import class_labels
from cdm.data.class_labels import Labels
from cdm.data.error_line import first_line
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.forms import foreign_content, kept_scan, parquet_columns
from cdm.data.forms.packed_names import PackedNames
from cdm.data.forms.parquet_columns import Columns
from cdm.data.forms.parquet_rows import import_parquet, innermost
from cdm.data.printable_name import printable

MAX_UNNAMED_CLASSES = 100_000
_THREADS = 16
_BATCH_ROWS = 1024
_MOST_NAME_BYTES = 4096  # on average in a batch
# n01440764_10026_n01440764.JPEG, ILSVRC2012_val_00000293_n01440764.JPEG
_SYNSET = re.compile(r'_(n\d{8})\.\w+$')
_TYPES = {
  'file': np.int32,
  'number': np.int32,
  'rows': np.int64,
  'bytes': np.int64,
  'labels': np.int32,
  'names': np.uint8,
  'ends': np.int64,
  'about': np.uint8,
}


class RowGroups(NamedTuple):
  """The row groups of all files, in order.

  Attributes:
    file: int32 [G], the index of the file that each is in.
    number: int32 [G], its number in the file.
    rows: int64 [G], how many rows it has.
    bytes: int64 [G], how many bytes its images take.
  """

  file: np.ndarray
  number: np.ndarray
  rows: np.ndarray
  bytes: np.ndarray


class Scan(NamedTuple):
  """The records of Parquet files.

  Attributes:
    groups: the row groups that the records are in.
    image: dotted path of the column of images.
    labels: of all records.
    names: of the original files; None if the files have none.
  """

  groups: RowGroups
  image: str
  labels: Labels
  names: PackedNames | None


def scan(
  files: Sequence[str],
  wanted: Sequence[str] = (),
  *,
  with_labels: bool = True,
) -> Scan:
  """Lists the records of files, or takes the kept list, see `kept_scan`.

  Args:
    files: paths of the files, of one schema.
    wanted, with_labels: see `parquet_columns.choose`.

  Raises:
    DamagedFile: a file is damaged, or no Parquet file.
    ValueError: the files have no images, or other columns than asked for.
  """
  parquet = import_parquet()
  what = f'parquet 1 {tuple(wanted)!r} {with_labels}'
  choose = functools.partial(
    parquet_columns.choose, wanted=wanted, with_labels=with_labels
  )
  found = kept_scan.scanned(
    what, files, lambda: _scan(parquet, files, choose), _TYPES
  )
  about = json.loads(found['about'].tobytes())
  labels = class_labels.none(len(found['labels']))
  if about['class_names'] is not None:
    names = tuple(about['class_names'])
    labels = Labels(found['labels'], names, about['named'])
  names = PackedNames(found['names'], found['ends'])
  return Scan(
    RowGroups(*(found[key] for key in RowGroups._fields)),
    about['image'],
    labels,
    names if about['has_names'] else None,
  )


class _File(NamedTuple):
  """What one file says."""

  columns: Columns
  rows: list[int]
  bytes: list[int]
  without_bytes: int  # rows
  labels: list[Any]
  names: list[str | None]


def _scan(parquet, files, choose) -> kept_scan.Arrays:
  def scan_one(path):
    return _refusing_damage(path, lambda: _scan_file(parquet, path, choose))

  with futures.ThreadPoolExecutor(_THREADS) as threads:
    scanned = list(threads.map(scan_one, files))
  columns = scanned[0].columns
  for path, one in zip(files, scanned, strict=True):
    if one.columns != columns:
      raise ValueError(
        f'{printable(path)} and {printable(files[0])} have other columns or '
        'class names, so they are not parts of one data set: give a folder '
        'with the files of one.'
      )
  counts = [len(one.rows) for one in scanned]
  rows = np.array([n for one in scanned for n in one.rows], np.int64)
  names = [name for one in scanned for name in one.names]
  if len(rows) and sum(one.without_bytes for one in scanned) == rows.sum():
    raise ValueError(
      f'{printable(files[0])} holds only the paths of images, such as '
      f'{next(filter(None, names), "none")!r}, and not their bytes. Download a '
      'copy with the bytes, or read the images as a folder.'
    )
  values = [label for one in scanned for label in one.labels]
  labels, class_names, named = _labels(files[0], columns, values, rows.sum())
  if names and named and class_names is not None:
    class_names = _with_synsets(files[0], class_names, labels, names)
  about = {
    'image': columns.image,
    'class_names': class_names,
    'named': named,
    'has_names': columns.name is not None,
  }
  packed = PackedNames.of(name or '' for name in names)
  return {
    'file': np.repeat(np.arange(len(files)), counts).astype(np.int32),
    'number': np.concatenate([np.arange(n) for n in counts]).astype(np.int32),
    'rows': rows,
    'bytes': np.array([n for one in scanned for n in one.bytes], np.int64),
    'labels': labels,
    'names': packed.data,
    'ends': packed.ends,
    'about': np.frombuffer(json.dumps(about).encode(), np.uint8),
  }


def _refusing_damage(path, read):
  """Returns read(); what a library says of a damaged file becomes one error."""
  try:
    return read()
  except (DamagedFile, MemoryError, FileNotFoundError, PermissionError):
    raise
  except Exception as error:  # pyarrow's own, of several types
    if not_of_the_file(error):
      raise
    if type(error) is ValueError:  # ours
      raise
    raise DamagedFile(
      f'{printable(path)} cannot be read as a Parquet file '
      f'({first_line(error)}). {foreign_content.remedy(path)}'
    ) from error


def _scan_file(parquet, path, choose) -> _File:
  with parquet.ParquetFile(path, pre_buffer=False) as file:
    columns = choose(path, file)
    rows, sizes, without = [], [], 0
    for g in range(file.num_row_groups):
      group = file.metadata.row_group(g)
      chunks = (group.column(n) for n in range(group.num_columns))
      chunk = next(c for c in chunks if c.path_in_schema == columns.image)
      rows.append(group.num_rows)
      sizes.append(chunk.total_compressed_size)
      if chunk.statistics is not None and chunk.statistics.has_null_count:
        without += chunk.statistics.null_count
    labels, names = [], []
    narrow = [c for c in (columns.label, columns.name) if c is not None]
    if narrow:
      for batch in file.iter_batches(
        _BATCH_ROWS, columns=narrow, use_threads=False
      ):
        if batch.nbytes > _MOST_NAME_BYTES * _BATCH_ROWS:
          raise DamagedFile(
            f'{printable(path)} has names or labels of {batch.nbytes:,} bytes '
            f'in {len(batch)} rows. Download it again.'
          )
        by_name = dict(zip(narrow, _in_order(batch, narrow), strict=True))
        if columns.label is not None:
          labels += by_name[columns.label]
        if columns.name is not None:
          names += by_name[columns.name]
  for column, values in ((columns.label, labels), (columns.name, names)):
    if column is not None and len(values) != sum(rows):
      raise DamagedFile(
        f'{printable(path)} has {len(values)} values in its column {column}, '
        f'and its directory says {sum(rows)}. Download it again.'
      )
  return _File(columns, rows, sizes, without, labels, names)


def _in_order(batch, paths):
  """Yields the values of a batch's columns, given by their dotted paths."""
  for path in paths:
    first, *rest = path.split('.')
    column = batch.column(first) if first in batch.schema.names else None
    if column is None or rest and column.type.num_fields == 0:
      column = batch.column(path)  # a dot in the name itself
      rest = []
    for field in rest:
      names = [column.type.field(n).name for n in range(column.type.num_fields)]
      column = column.flatten()[names.index(field)]
    yield innermost(column).to_pylist()


def _labels(path, columns, values, count):
  """Returns (int32 [N], class names or None, whether they name the classes)."""
  if columns.label is None:
    return np.zeros(count, np.int32), None, True
  if columns.is_text:
    names = sorted({value for value in values if value is not None})
    number = {None: -1, **{name: n for n, name in enumerate(names)}}
    return np.array([number[v] for v in values], np.int32), names, True
  labels = np.array([-1 if v is None else v for v in values], np.int64)
  names = columns.class_names
  most = MAX_UNNAMED_CLASSES if names is None else len(names)
  if len(labels) and not -1 <= labels.min() <= labels.max() < most:
    raise DamagedFile(
      f'{printable(path)} and the files beside it have labels from '
      f'{labels.min()} to {labels.max()} in the column {columns.label}, but '
      f'there are {most} classes. Choose the column with columns, or '
      'download the files again.'
    )
  labels = labels.astype(np.int32)
  if names is None:
    return labels, [str(n) for n in range(labels.max(initial=-1) + 1)], False
  return labels, class_labels.told_apart(names), True


def _with_synsets(path, class_names, labels, names):
  """Returns the WordNet ids of all classes, or the names as they are."""
  synsets: dict[int, str] = {}
  for label, name in zip(labels.tolist(), names, strict=True):
    match = _SYNSET.search(name or '')
    if label < 0:
      continue
    if not match or synsets.setdefault(label, match[1]) != match[1]:
      return class_names
  one_to_one = len(set(synsets.values())) == len(synsets)
  if not synsets or not one_to_one:
    return class_names
  if len(synsets) < len(class_names):
    logging.warning(
      '%s: the WordNet ids of %d of %d classes are not known, because no image '
      'of theirs is there, so all classes keep their names in words.',
      printable(path),
      len(class_names) - len(synsets),
      len(class_names),
    )
    return class_names
  return [synsets[n] for n in range(len(class_names))]
