"""Rewrites a TFDS data set from TFRecord to ArrayRecord, beside the old files.

  python -m cdm.data.convert_tfrecord DATA_DIR/NAME/VERSION

tensorflow-datasets (TFDS) has a command for this, tfds convert_format, but it
needs Apache Beam. This command needs neither Beam nor TensorFlow. It copies the
records byte for byte and adds the new format to dataset_info.json, where TFDS
finds it. If it is interrupted, run it again: it keeps the finished shards.
"""

import json
import os
import pathlib
import struct
import sys
from collections.abc import Iterator
from typing import NotRequired, TypedDict

import tqdm

from cdm.data import shard_records, shard_writer
from cdm.data.files import atomic_files, json_file
from cdm.data.files.damaged_file import DamagedFile

_LENGTH = struct.Struct('<Q')
# A checksum follows the length and another the data. They are not verified.
_CHECKSUM_BYTES = 4


class _Split(TypedDict):
  """A split; before TFDS 3, only the number of its shards was stored."""

  name: str
  shardLengths: NotRequired[list[str | int]]
  numShards: NotRequired[str | int]


class _Info(TypedDict):
  """The entries of dataset_info.json that are needed here."""

  name: str
  splits: list[_Split]
  fileFormat: NotRequired[str]
  alternativeFileFormats: NotRequired[list[str]]


def convert(folder: str | os.PathLike[str]) -> None:
  """Converts every shard of every split of a data set.

  Args:
    folder: the version folder of the data set, which has dataset_info.json.

  Raises:
    ValueError: the folder has no TFRecord data set, or a shard is truncated or
      has another number of records than dataset_info.json states.
    OSError: a shard is missing or cannot be read.
  """
  folder = pathlib.Path(folder)
  path = folder / 'dataset_info.json'
  if not path.exists():
    raise ValueError(
      f'{folder} has no dataset_info.json; give the version folder of a data '
      f'set, e.g. ~/tensorflow_datasets/imagenet2012/5.1.0.'
    )
  info = json_file.read(path, _Info, remedy='Fetch the data set again.')
  # TFRecord was the only format when the format was not stored yet.
  if info.setdefault('fileFormat', 'tfrecord') != 'tfrecord':
    raise ValueError(
      f'{folder} holds {info["fileFormat"]!r} files, not tfrecord.'
    )
  for name in (info['name'], *(split['name'] for split in info['splits'])):
    if not name or pathlib.PurePath(name).name != name:
      raise DamagedFile(
        f'{path} is damaged: {name!r} cannot be part of a file name. Fetch the '
        'data set again.'
      )
  for split in info['splits']:
    lengths = _shard_lengths(split, path)
    for shard_index, length in enumerate(tqdm.tqdm(lengths, split['name'])):
      shard = f'{shard_index:05d}-of-{len(lengths):05d}'
      stem = f'{info["name"]}-{split["name"]}'
      source = folder / f'{stem}.tfrecord-{shard}'
      target = folder / f'{stem}.array_record-{shard}'
      lengths[shard_index] = _convert_shard(source, target, length)
    split['shardLengths'] = [str(length) for length in lengths]
    split.pop('numShards', None)
  formats = info.setdefault('alternativeFileFormats', [])
  if 'array_record' not in formats:
    formats.append('array_record')
  with atomic_files.write_atomically(path) as partial:
    partial.write_text(json.dumps(info, indent=2), encoding='utf-8')


def _shard_lengths(split, path) -> list[int | None]:
  """Returns the length of each shard, None where it is not stored."""
  try:
    if 'shardLengths' in split:
      return [int(length) for length in split['shardLengths']]
    return [None] * int(split['numShards'])
  except KeyError as error:
    raise DamagedFile(
      f'{path} is damaged: the split {split["name"]} has neither shardLengths '
      'nor numShards. Fetch the data set again.'
    ) from error
  except ValueError as error:
    raise DamagedFile(
      f'{path} is damaged: a shard of {split["name"]} has a length that is '
      'no number. Fetch the data set again.'
    ) from error


def _convert_shard(source, target, length):
  """Converts a shard unless that was done, and returns its length."""
  if target.exists():
    return shard_records.counted([str(target)])[0].count
  new_writer = shard_writer.writer_class()
  with atomic_files.write_atomically(target) as partial:
    writer = new_writer(str(partial), 'group_size:1')
    count = 0
    for record in tfrecords(source):
      writer.write(record)
      count += 1
    writer.close()
    if length is not None and count != length:
      raise ValueError(f'{source} has {count} records; {length} were expected.')
  return count


def tfrecords(path: str | os.PathLike[str]) -> Iterator[bytes]:
  """Yields the records of one uncompressed TFRecord file.

  Raises:
    DamagedFile: the file is truncated.
  """
  with open(path, 'rb') as file:
    size = os.fstat(file.fileno()).st_size
    while head := file.read(_LENGTH.size + _CHECKSUM_BYTES):
      try:
        (length,) = _LENGTH.unpack_from(head)
      except struct.error as error:
        raise DamagedFile(f'{path} is truncated; fetch it again.') from error
      # It is compared first: a damaged length could ask for all memory.
      if length + _CHECKSUM_BYTES > size - file.tell():
        raise DamagedFile(f'{path} is truncated; fetch it again.')
      record = file.read(length)
      file.read(_CHECKSUM_BYTES)
      yield record


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  try:
    convert(sys.argv[1])
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
