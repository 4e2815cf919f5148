"""Every record is read and compared with the checksum of its shard."""

import re
import types

import pytest

from cdm.data import (
  array_record,
  prepare,
  record_format,
  record_verification,
  shard_writer,
  synthetic,
)
from cdm.data.files import damaged_file

pytest.importorskip('array_record')
OPTIONS = {'size': 8, 'records_per_shard': 20}


@pytest.fixture
def source():
  return synthetic.Synthetic(image_size=8, num_images=50)


def rewrite(path, change):
  """Writes a shard anew, with the records that `change` makes of its own."""
  found = array_record.open_shards([str(path)])
  data = change([found[i] for i in range(len(found))])
  with shard_writer.new_shard(path) as write:
    for record in data:
      write(record)


def swapped(data):
  return [data[1], data[0], *data[2:]]


def test_records_that_were_exchanged_are_found_and_prepared_again(
  source, tmp_path, caplog
):
  """The size, the count and ArrayRecord's own checksums are right."""
  prepare.prepare(source, out=tmp_path, **OPTIONS)
  shards = sorted(tmp_path.glob('*.array_record'))
  whole = [path.read_bytes() for path in shards]
  rewrite(shards[0], swapped)
  prepare.prepare(source, out=tmp_path, **OPTIONS)
  assert not caplog.text
  kept = shards[1].stat().st_ino
  prepare.prepare(source, out=tmp_path, verify=True, **OPTIONS)
  assert re.search(r'images-00000-of-00003.* the checksum of its', caplog.text)
  assert [path.read_bytes() for path in shards] == whole
  assert shards[1].stat().st_ino == kept  # Only the damaged one was written.


def test_a_byte_that_changed_is_found(source, tmp_path):
  index = prepare.prepare(source, out=tmp_path, **OPTIONS)
  shard = index['shards'][0]
  path = tmp_path / shard['file']
  record_verification.check_records(path, shard)
  data = bytearray(path.read_bytes())
  data[300:340] = bytes(40)
  path.write_bytes(data)
  with pytest.raises(damaged_file.DamagedFile, match='record .*with --verify'):
    record_verification.check_records(path, shard)


def test_a_set_of_an_earlier_version_is_checked_as_far_as_it_goes(
  source, tmp_path
):
  index = prepare.prepare(source, out=tmp_path, **OPTIONS)
  shard = index['shards'][2]
  del shard['crc32']
  path = tmp_path / shard['file']
  rewrite(path, swapped)
  record_verification.check_records(path, shard)
  rewrite(path, lambda data: [b'no record', *data[1:]])
  with pytest.raises(damaged_file.DamagedFile, match='not a record'):
    record_verification.check_records(path, shard)


def test_what_is_read_back_as_another_ends_the_run(
  source, tmp_path, monkeypatch
):
  other = types.SimpleNamespace(crc32=lambda data, start: 7)
  monkeypatch.setattr(record_verification, 'zlib', other)
  with pytest.raises(damaged_file.DamagedFile, match='records is 00000007'):
    prepare.prepare(source, out=tmp_path, verify=True, **OPTIONS)
  assert not record_format.read_index(tmp_path)['shards']
