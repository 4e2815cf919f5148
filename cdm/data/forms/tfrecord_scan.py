"""Lists the records of TFRecord files, with their labels and names.

A record is its length, a checksum of that, the data, and a checksum of them.
The lengths lead from one record to the next, so that the images are not read.
"""

import itertools
import json
import os
import struct
from collections.abc import Collection, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
from absl import logging

from cdm.data import class_labels
from cdm.data.class_labels import Labels
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import (
  byte_ranges,
  crc32c,
  foreign_content,
  kept_scan,
  tf_example,
)
from cdm.data.forms.packed_names import PackedNames
from cdm.data.forms.tf_example import Feature, Span
from cdm.data.printable_name import printable
from cdm.data.source import first_names

SHAPE, DATA = 'shape', 'data'  # of NVIDIA's records
IMAGE = 'image/encoded'  # of TF Slim's
_LABEL, _SYNSET, _TEXT, _NAME = (
  'image/class/label',
  'image/class/synset',
  'image/class/text',
  'image/filename',
)
MAX_UNNAMED_CLASSES = 100_000
_HEAD = struct.Struct('<QI')
_CHECKSUM_BYTES = 4
_BLOCK_BYTES = 1024
_THREADS = 16
_LARGE_BYTES = 10**10
_TYPES = {
  'file': np.int32,
  'begin': np.int64,
  'length': np.int64,
  'labels': np.int32,
  'names': np.uint8,
  'ends': np.int64,
  'about': np.uint8,
}


class Records(NamedTuple):
  """Where the data of N records are.

  Attributes:
    file: int32 [N], the index of the file that each is in.
    begin: int64 [N], where its data begin.
    length: int64 [N], how many bytes they have.
  """

  file: np.ndarray
  begin: np.ndarray
  length: np.ndarray


class Scan(NamedTuple):
  """The records of TFRecord files.

  Attributes:
    records: where they are.
    is_raw: whether they are NVIDIA's, of pixels; if not, TF Slim's, of files.
    labels: that the records themselves carry; None without.
    names: of the original files; None without.
  """

  records: Records
  is_raw: bool
  labels: Labels | None
  names: PackedNames | None


def scan(files: Sequence[str]) -> Scan:
  """Lists the records of files, or takes the kept list, see `kept_scan`.

  Raises:
    DamagedFile: a file is damaged, or holds no TFRecords.
    ValueError: the records are of another kind.
  """
  found = kept_scan.scanned('tfrecords 1', files, lambda: _scan(files), _TYPES)
  about = json.loads(found['about'].tobytes())
  labels = None
  if about['class_names'] is not None:
    labels = Labels(
      found['labels'], tuple(about['class_names']), about['named']
    )
  names = PackedNames(found['names'], found['ends'])
  return Scan(
    Records(*(found[key] for key in Records._fields)),
    about['is_raw'],
    labels,
    names if about['has_names'] else None,
  )


class _Described(NamedTuple):
  """What a record of TF Slim says of its image."""

  label: int | None
  synset: str | None
  text: str | None
  name: str | None


class _File(NamedTuple):
  """What was found in one file."""

  spans: list[Span]
  described: list[_Described]


def _scan(files) -> kept_scan.Arrays:
  is_raw = _is_raw(files)

  def scan_one(path):
    spans = list(records(path))
    if is_raw:
      return _File(spans, [])
    take = _in_blocks(path)
    return _File(
      spans, [_described(path, n, take, s) for n, s in enumerate(spans)]
    )

  total = sum(os.path.getsize(path) for path in files)
  if not is_raw and total > _LARGE_BYTES:
    logging.warning(
      'Listing the records of %d TFRecord files of %.0f GB, which takes some '
      'minutes the first time.',
      len(files),
      total / 1e9,
    )
  with futures.ThreadPoolExecutor(_THREADS) as threads:
    scanned = list(threads.map(scan_one, files))
  spans = np.array(
    [span for one in scanned for span in one.spans], np.int64
  ).reshape(-1, 2)
  described = [each for one in scanned for each in one.described]
  labels, class_names, named = _labels(files[0], described)
  if labels is None:
    labels = np.zeros(len(spans), np.int32)
  has_names = bool(described) and all(each.name for each in described)
  names = PackedNames.of(each.name or '' for each in described)
  about = {
    'is_raw': is_raw,
    'class_names': class_names,
    'named': named,
    'has_names': has_names,
  }
  counts = [len(one.spans) for one in scanned]
  return {
    'file': np.repeat(np.arange(len(files)), counts).astype(np.int32),
    'begin': spans[:, 0].copy(),
    'length': spans[:, 1] - spans[:, 0],
    'labels': labels,
    'names': names.data,
    'ends': names.ends,
    'about': np.frombuffer(json.dumps(about).encode(), np.uint8),
  }


def records(path: str) -> Iterator[Span]:
  """Yields where the data of each record of a file are.

  The checksum of each length is verified, that of the data is not.

  Raises:
    DamagedFile: the file is damaged, cut short, or holds no TFRecords.
    ValueError: it is compressed.
  """
  size, at, n = os.stat(path).st_size, 0, 0
  while at < size:
    head = byte_ranges.read(path, at, min(_HEAD.size, size - at))
    if len(head) == _HEAD.size:
      length, checksum = _HEAD.unpack(head)
      if checksum != crc32c.masked(head[:8]):
        raise _refusal(path, head, at, n)
      begin, at = at + _HEAD.size, at + _HEAD.size + length + _CHECKSUM_BYTES
    if len(head) < _HEAD.size or at > size:
      raise DamagedFile(
        f'{printable(path)} is cut short inside of record {n}: it has '
        f'{size:,} bytes. Copy or download it again.'
      )
    yield Span(begin, begin + length)
    n += 1


def _refusal(path, head, at, n):
  if at:
    return DamagedFile(
      f'The length of record {n} of {printable(path)}, at byte {at:,}, does '
      'not match its checksum, so no record behind it can be found. Copy or '
      'download the file again.'
    )
  if head.startswith(b'\x1f\x8b'):
    return ValueError(
      f'{printable(path)} is compressed as a whole, so no record in it can be '
      f'read by itself. Unpack it: gunzip --suffix= {path}'
    )
  return DamagedFile(
    f'{printable(path)} does not begin with a TFRecord. '
    f'{foreign_content.remedy(path)}'
  )


def read(path: str, begin: int, length: int) -> bytes:
  """Returns the data of a record.

  Raises:
    DamagedFile: they do not match their checksum, or the file has become
      shorter.
  """
  data = byte_ranges.read(path, begin, length + _CHECKSUM_BYTES)
  data, checksum = data[:length], data[length:]
  if crc32c.masked(data) != int.from_bytes(checksum, 'little'):
    raise DamagedFile('its data do not match their checksum')
  return data


def _in_blocks(path) -> tf_example.Take:
  """Returns what takes parts of a file and reads it in blocks."""
  block, first, size = b'', 0, os.stat(path).st_size

  def take(begin, length):
    nonlocal block, first
    if begin < first or begin + length > first + len(block):
      wanted = min(size - begin, max(length, _BLOCK_BYTES))
      block = byte_ranges.read(path, begin, wanted)
      first = begin
    return block[begin - first : begin - first + length]

  return take


def parsed(
  path: str,
  n: int,
  take: tf_example.Take,
  span: Span,
  wanted: Collection[str] | None = None,
) -> dict[str, Feature]:
  """Returns the features of a record.

  Args:
    path: the file.
    n: number of the record, for errors.
    take, span, wanted: see `tf_example.features`.

  Raises:
    DamagedFile: it is no Example.
  """
  try:
    return tf_example.features(take, span, wanted)
  except tf_example.Malformed as error:
    raise DamagedFile(
      f'Record {n} of {printable(path)} is no Example of TensorFlow ({error}). '
      'Copy or download the file again.'
    ) from error


def _is_raw(files):
  """Returns whether the first record is NVIDIA's, not TF Slim's."""
  for path in files:
    span = next(records(path), None)
    if span is None:
      continue
    found = parsed(path, 0, _in_blocks(path), span)
    if IMAGE in found:
      return False
    if {SHAPE, DATA} <= set(found):
      return True
    raise ValueError(
      f'{printable(path)} holds records with the features '
      f'{first_names(tuple(sorted(found)))}. Known are {SHAPE} and {DATA}, as '
      f"NVIDIA's programs write them, and {IMAGE}, as TF Slim's do. A data set "
      "of tensorflow-datasets is read with kind='tfds'."
    )
  raise ValueError(f'{printable(files[0])} has no records.')


def _described(path, n, take, span):
  found = parsed(path, n, take, span, (_LABEL, _SYNSET, _TEXT, _NAME))
  try:
    return _Described(
      tf_example.integer(take, found.get(_LABEL)),
      *(tf_example.text(take, found.get(key)) for key in (_SYNSET, _TEXT)),
      tf_example.text(take, found.get(_NAME)),
    )
  except tf_example.Malformed as error:
    raise DamagedFile(
      f'Record {n} of {printable(path)} has a damaged label or name ({error}). '
      'Copy or download the file again.'
    ) from error


def _labels(path, described):
  """Returns (int32 [N], class names, whether they name the classes) or Nones.

  TF Slim counts classes from 1, other programs from 0. Where the records name
  their classes, the numbers give the order of the names and nothing else.
  """
  numbers = [each.label for each in described]
  for names in ([e.synset for e in described], [e.text for e in described]):
    if names and all(names):
      return _named_labels(path, numbers, names)
  if all(number is None for number in numbers):
    return None, None, True
  labels = np.array([-1 if n is None else n for n in numbers], np.int64)
  if not -1 <= labels.min() <= labels.max() < MAX_UNNAMED_CLASSES:
    raise DamagedFile(
      f'{printable(path)} and the files beside it have labels from '
      f'{labels.min()} to {labels.max()}, and at most {MAX_UNNAMED_CLASSES} '
      'classes without names are allowed. Correct the labels.'
    )
  class_names = [str(n) for n in range(labels.max() + 1)]
  return labels.astype(np.int32), class_names, False


def _named_labels(path, numbers, names):
  pairs = [
    (-1 if n is None else n, x) for n, x in zip(numbers, names, strict=True)
  ]
  classes = sorted(set(pairs))
  numbered = any(number is not None for number in numbers)
  if numbered and len({n for n, _ in classes}) < len(classes):
    twice = next(
      (first, second)
      for first, second in itertools.pairwise(classes)
      if first[0] == second[0]
    )
    raise DamagedFile(
      f'{printable(path)} and the files beside it name the label '
      f'{twice[0][0]} both {printable(twice[0][1])!r} and '
      f'{printable(twice[1][1])!r}. Download the files again.'
    )
  label = {pair: n for n, pair in enumerate(classes)}
  labels = np.array([label[pair] for pair in pairs], np.int32)
  return labels, class_labels.told_apart([x for _, x in classes]), True
