import io
import json

import numpy as np
import pytest
from PIL import Image

from cdm.data import record_format, transforms
from cdm.data.files import damaged_file


def record(size=2, *, label=7, short_side=300):
  image = np.arange(size * size * 3, dtype=np.uint8).reshape(size, size, 3)
  return record_format.pack(
    {
      'image': image,
      'label': np.int32(label),
      'short_side': np.int32(short_side),
    }
  )


HEAD = len(record_format.pack_bad(transforms.BadImage('a', 'b'))) - len(
  '["a", "b"]'
)


@pytest.mark.parametrize(('size', 'short_side'), [(1, 1), (2, 300), (5, 5)])
def test_an_image_comes_out_of_its_record_as_it_went_in(size, short_side):
  element = record_format.unpack(
    record(size, label=-1, short_side=short_side), name='x[3]'
  )
  expected = np.arange(size * size * 3).reshape(size, size, 3)
  np.testing.assert_array_equal(element['image'], expected)
  element['image'][0, 0, 0] = 9  # a copy, not a view of the file's bytes
  assert element['label'] == -1 and element['label'].dtype == np.int32
  assert element['short_side'] == short_side


def test_an_unusable_image_comes_out_as_its_own_error():
  data = record_format.pack_bad(transforms.BadImage('a.png', 'cut off'))
  with pytest.raises(transforms.BadImage) as caught:
    record_format.unpack(data, name='x[3]')
  assert caught.value.args == ('a.png', 'cut off')


@pytest.mark.parametrize(
  ('data', 'reason'),
  [
    *((record()[:cut], 'not a record') for cut in (0, 4, HEAD - 1)),
    (b'CDM2' + record()[4:], 'not a record'),
    (b'\0' + record(), 'not a record'),
    (record()[:HEAD], '0 bytes are not 2x2'),
    (record()[:-1], '11 bytes are not 2x2'),
    (record() + b'\0', '13 bytes are not 2x2'),
    (record()[: HEAD - 4] + bytes(4), '0 bytes are not 0x0'),
    (
      record()[: HEAD - 4] + b'\xfe\xff\xff\xff' + record()[HEAD:],
      '12 bytes are not -2x-2',
    ),
  ],
)
def test_a_record_whose_head_does_not_fit_its_bytes_is_refused(data, reason):
  with pytest.raises(transforms.BadImage, match=reason) as caught:
    record_format.unpack(data, name='x[3]')
  assert caught.value.args[0] == 'x[3]'


def file_record(short_side=300):
  file = io.BytesIO()
  Image.new('RGB', (5, 3), (1, 2, 3)).save(file, 'PNG')
  return record_format.pack_file(
    file.getvalue(), label=7, short_side=short_side
  )


def test_a_file_comes_out_of_its_record_as_its_pixels():
  element = record_format.unpack(file_record(), name='x[3]')
  np.testing.assert_array_equal(element['image'], np.full((3, 5, 3), (1, 2, 3)))
  assert (element['label'], element['short_side']) == (7, 300)


@pytest.mark.parametrize(
  ('data', 'reason'),
  [
    (file_record()[:-1], 'bytes are not an image file of'),
    (file_record() + b'0', 'bytes are not an image file of'),
    (file_record(short_side=0), 'are not an image file of'),
    (file_record()[:HEAD], '0 bytes are not an image file'),
    (record_format.pack_file(b'text', label=0, short_side=1), 'is not a JPEG'),
  ],
)
def test_a_record_that_holds_no_whole_file_is_refused(data, reason):
  with pytest.raises(transforms.BadImage, match=reason) as caught:
    record_format.unpack(data, name='x[3]')
  assert caught.value.args[0] == 'x[3]'


STORAGE = {
  'format': 'array_records',
  'images': 10,
  'records_per_shard': 4,
  'folders': ['low', 'high'],
}


def write_json(path, value):
  path.write_text(json.dumps(value), encoding='utf-8')


def test_a_folder_stands_for_its_own_shards_or_for_the_last_samples(tmp_path):
  assert record_format.find_folder(tmp_path) is None
  write_json(tmp_path / record_format.SAMPLING, {'seed': 0})
  assert record_format.find_folder(tmp_path) is None  # samples are PNG files
  assert record_format.read_storage(tmp_path) is None
  write_json(tmp_path / record_format.SAMPLING, {'storage': STORAGE})
  assert record_format.find_folder(tmp_path) == tmp_path / 'high'
  assert record_format.read_storage(tmp_path) == STORAGE
  (tmp_path / record_format.INDEX).touch()
  assert record_format.find_folder(tmp_path) == tmp_path / 'high'
  (tmp_path / record_format.shard_name(0, 3)).touch()
  assert record_format.find_folder(tmp_path) == tmp_path
  (tmp_path / record_format.INDEX).unlink()
  assert record_format.find_folder(tmp_path) == tmp_path / 'high'


@pytest.mark.parametrize(
  'change',
  [
    {'folders': []},
    {'folders': ['../elsewhere']},
    {'folders': ['low', '/etc']},
    {'records_per_shard': 0},
    {'records_per_shard': -1},
    {'images': 'ten'},
  ],
)
def test_a_storage_that_could_not_be_is_damaged(tmp_path, change):
  stored = {'storage': STORAGE | change}
  write_json(tmp_path / record_format.SAMPLING, stored)
  with pytest.raises(damaged_file.DamagedFile, match='storage of .*damaged'):
    record_format.read_storage(tmp_path)
  one = {'storage': STORAGE | {'records_per_shard': 1, 'folders': ['low']}}
  write_json(tmp_path / record_format.SAMPLING, one)
  assert record_format.find_folder(tmp_path) == tmp_path / 'low'


@pytest.mark.parametrize(
  ('name', 'is_one'),
  [
    (record_format.shard_name(0, 1), True),
    (record_format.shard_name(123456, 200000), True),
    ('images-0000-of-00001.array_record', False),
    ('images-00000-of-00001.array_record.partial', False),
    ('a/images-00000-of-00001.array_record', False),
    ('index.json', False),
  ],
)
def test_a_shard_is_known_by_its_whole_name(name, is_one):
  assert record_format.is_shard_name(name) is is_one


@pytest.mark.parametrize('least', ['size', 'records', 'records_per_shard'])
def test_an_index_counts_from_one(tmp_path, least):
  recipe = dict(
    format=1,
    source='x',
    records=1,
    size=1,
    crop='none',
    filter='area',
    records_per_shard=1,
    pillow='none',
    libjpeg_turbo='none',
  )
  shard = {'file': record_format.shard_name(0, 1), 'records': 1, 'skipped': []}
  index = dict(
    recipe=recipe,
    fingerprint='x',
    class_names=[],
    shards=[shard],
    complete=True,
  )
  record_format.write_index(tmp_path, index)
  assert record_format.read_index(tmp_path) == index
  assert record_format.command_of(index) == 'cdm prepare'
  for wrong in (
    index | {'recipe': recipe | {least: 0}},
    index | {'shards': [shard | {'records': 0}]},
  ):
    record_format.write_index(tmp_path, wrong)
    with pytest.raises(damaged_file.DamagedFile, match='counts below 1'):
      record_format.read_index(tmp_path)
  shards = [shard | {'file': '../' + shard['file']}]
  record_format.write_index(tmp_path, index | {'shards': shards})
  with pytest.raises(damaged_file.DamagedFile, match='is no shard of it'):
    record_format.read_index(tmp_path)
