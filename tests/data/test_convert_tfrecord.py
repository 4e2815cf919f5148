import json
import struct

import pytest

from cdm.data import array_record, convert_tfrecord
from cdm.data.files.damaged_file import DamagedFile

RECORDS = [b'one', b'', b'three' * 100]
SHARD = 'toy-train.tfrecord-00000-of-00001'


def packed(records):
  """A TFRecord file; nobody looks at the checksums."""
  return b''.join(
    struct.pack('<Q', len(data)) + b'abcd' + data + b'efgh' for data in records
  )


def write(folder, records=RECORDS, **changes):
  (folder / SHARD).write_bytes(packed(records))
  info = {
    'name': 'toy',
    'fileFormat': 'tfrecord',
    'splits': [{'name': 'train', 'shardLengths': [str(len(RECORDS))]}],
  }
  path = folder / 'dataset_info.json'
  path.write_text(json.dumps(info | changes), encoding='utf-8')
  return path


def test_records_are_copied_and_the_new_format_is_told_once(tmp_path):
  pytest.importorskip('array_record')
  path = write(tmp_path, more='kept')
  convert_tfrecord.convert(tmp_path)
  (made,) = tmp_path.glob('*.array_record-*')
  assert made.name == SHARD.replace('tfrecord', 'array_record')
  found = array_record.open_shards([str(made)])
  assert [found[i] for i in range(len(found))] == RECORDS
  (tmp_path / SHARD).unlink()  # a shard that is there is not made again
  convert_tfrecord.convert(tmp_path)
  info = json.loads(path.read_text(encoding='utf-8'))
  assert info['alternativeFileFormats'] == ['array_record']
  assert info['more'] == 'kept'


@pytest.mark.parametrize('records', [RECORDS[:2], [*RECORDS, b'four']])
def test_a_shard_of_another_number_of_records_is_refused(tmp_path, records):
  pytest.importorskip('array_record')
  write(tmp_path, records)
  count = len(records)
  with pytest.raises(ValueError, match=f'has {count} records; 3 were expected'):
    convert_tfrecord.convert(tmp_path)
  assert not list(tmp_path.glob('*array_record*'))


@pytest.mark.parametrize('kept', [1, 11, 12, 14, 18, 20, 30, -1, -4, -5])
def test_a_record_that_is_cut_off_is_refused_wherever_it_is(tmp_path, kept):
  (tmp_path / SHARD).write_bytes(packed(RECORDS)[:kept])
  with pytest.raises(DamagedFile, match='truncated'):
    list(convert_tfrecord.tfrecords(tmp_path / SHARD))


def test_a_file_may_end_behind_any_record(tmp_path):
  for count in range(len(RECORDS) + 1):
    (tmp_path / SHARD).write_bytes(packed(RECORDS[:count]))
    found = list(convert_tfrecord.tfrecords(tmp_path / SHARD))
    assert found == RECORDS[:count]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'name': ''}, "'' cannot be part of a file name"),
    ({'name': '../toy'}, "'../toy' cannot be part"),
    ({'splits': [{'name': 'a/b', 'shardLengths': []}]}, "'a/b' cannot be"),
    (
      {'splits': [{'name': 'a', 'shardLengths': ['x']}]},
      'shard of a has a len',
    ),
    ({'fileFormat': 'riegeli'}, "holds 'riegeli' files, not tfrecord"),
  ],
)
def test_a_description_that_could_not_be_is_refused(tmp_path, changes, message):
  write(tmp_path, **changes)
  with pytest.raises(ValueError, match=message):
    convert_tfrecord.convert(tmp_path)
  assert not list(tmp_path.glob('*array_record*'))
