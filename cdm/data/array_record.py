"""Reads a data set that `cdm prepare` wrote, as a source of images."""

import os

from cdm.data import record_format
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
    self._records = _array_record_source(self._paths)
    if len(self._records) != index['recipe']['records']:
      raise ValueError(
        f'{self.path!r} has {len(self._records)} records, but its index says '
        f'{index["recipe"]["records"]}; delete it and prepare it again.'
      )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, i: int) -> Element:
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
