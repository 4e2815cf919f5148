"""Reads every record of a shard and compares them with their checksum."""

import os
import zlib

from cdm.data import array_record, record_format, transforms
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file


def check_records(
  path: str | os.PathLike[str], shard: record_format.Shard
) -> None:
  """Reads a shard to its end.

  Records that say why an image could not be used are whole too.

  Args:
    path: the shard.
    shard: its entry in the index. One of an earlier version has no checksum;
      then every record must be one that can be used.

  Raises:
    DamagedFile: a record is damaged, or their checksum is another.
  """
  path = os.fspath(path)
  records = array_record.open_shards([path])
  checksum, bad = 0, 0
  for i in range(shard['records']):
    data = _read(records, i, path)
    checksum = zlib.crc32(data, checksum)
    try:
      record_format.unpack(data, name=f'{path}[{i}]')
    except transforms.BadImage as error:
      bad += 1
      if bad > len(shard['skipped']):
        raise DamagedFile(f'{error}. {_REMEDY}') from error
  if checksum != shard.get('crc32', checksum):
    raise DamagedFile(
      f'{path} is damaged: the checksum of its records is {checksum:08x}, and '
      f'its index says {shard["crc32"]:08x}. {_REMEDY}'
    )


_REMEDY = (
  'Run the same cdm prepare command with --verify: it writes the shard anew.'
)


def _read(records, i, path):
  try:
    return records[i]
  except Exception as error:  # the library's own, of several types
    if not_of_the_file(error):
      raise
    reason = str(error).split('\n')[0].split(';')[0][:200]
    raise DamagedFile(
      f'{path} is damaged: record {i} cannot be read ({reason}). {_REMEDY}'
    ) from error
