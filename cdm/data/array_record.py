"""Reads a data set that `cdm prepare` wrote, as a source of images."""

import os
from collections.abc import Sequence
from typing import Any

from cdm.data import record_format, transforms
from cdm.data.damaged_file import DamagedFile
from cdm.data.source import Element


class ArrayRecords:
  """The images of a prepared data set, already cropped and resized.

  Attributes:
    path: folder of the data set.
    index: the contents of `index.json`, see `prepare.prepare`.
    image_size: S, pixels.
    class_names: the name of each label; () if there are none.
    num_classes: number of labels.
    fingerprint: changes when the images do.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Reads the index and opens the shards.

    Args:
      path: folder of a prepared data set.

    Raises:
      DamagedFile: the index or a shard is damaged.
      ValueError: the folder is not a prepared data set, or the data set is
        unfinished or lacks files.
    """
    self.path = os.path.expanduser(path)
    index = record_format.read_index(self.path)
    if index is None:
      raise ValueError(
        f'{self.path!r} is not a prepared data set: it has no '
        f'{record_format.INDEX}. '
        f'Make one with: cdm prepare --source=... --size=... --out={self.path}'
      )
    if not index['complete']:
      done = sum(shard['records'] for shard in index['shards'])
      raise ValueError(
        f'{self.path!r} is unfinished: it has {done} of '
        f'{index["recipe"]["records"]} records. Run the same cdm prepare '
        f'command again; it continues where it stopped.'
      )
    self.index = index
    self.image_size = index['recipe']['size']
    self.class_names = tuple(index['class_names'])
    self.num_classes = len(self.class_names)
    self.fingerprint = f'prepared:{index["fingerprint"]}'
    self._paths = [os.path.join(self.path, s['file']) for s in index['shards']]
    for path in self._paths:
      if not os.path.exists(path):
        raise ValueError(
          f'{path} is missing; run the same cdm prepare command again.'
        )
    try:
      self._records = open_shards(self._paths)
      whole = len(self._records) == index['recipe']['records']
    except DamagedFile:
      whole = False
    if not whole:
      for path, shard in zip(self._paths, index['shards'], strict=True):
        check_shard(path, shard['records'])
      raise DamagedFile(
        f'{os.path.join(self.path, record_format.INDEX)} lists shards of other '
        f'than {index["recipe"]["records"]} records. Delete {self.path} and '
        'prepare it again.'
      )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, i: int) -> Element:
    name = f'{self.path}[{i}]'
    if not -len(self) <= i < len(self):
      raise IndexError(f'{name} of {len(self)}')
    try:
      data = self._records[i % len(self)]
    except Exception as error:  # the library's own, of several types
      raise transforms.BadImage(
        name,
        f'its shard is damaged ({_first_line(error)}); delete the shard and '
        'run the same cdm prepare command again',
      ) from error
    return record_format.unpack(data, name=name)


def open_shards(paths: Sequence[str]) -> Any:
  """Returns the records of shards, as a sequence of bytes.

  Raises:
    DamagedFile: a shard is damaged; the message names the only one, if it is.
    ValueError: the package array-record is not installed.
  """
  try:
    from array_record.python import array_record_data_source
  except ImportError as error:
    raise ValueError(
      'Reading ArrayRecord needs the package array-record (Linux only): '
      'pip install array-record. Elsewhere, train from a folder of images.'
    ) from error
  try:
    return array_record_data_source.ArrayRecordDataSource(list(paths))
  except Exception as error:  # the library's own, of several types
    raise DamagedFile(
      f'{", ".join(paths[:1])} is damaged ({_first_line(error)}). Run the same '
      'cdm prepare command again: it writes the shard anew.'
    ) from error


def check_shard(path: str, records: int) -> None:
  """Opens a shard and counts its records, which are not read.

  Raises:
    DamagedFile: the shard is damaged, or has other than `records` records.
  """
  count = len(open_shards([path]))
  if count != records:
    raise DamagedFile(
      f'{path} has {count} records and its index says {records}. Run the same '
      'cdm prepare command again: it writes the shard anew.'
    )


def _first_line(error):
  return str(error).split('\n')[0].split(';')[0][:200]
