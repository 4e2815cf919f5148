import os
import pickle
import shlex

import numpy as np
import pytest

from cdm.config import datasets
from cdm.data import array_record, prepare, record_format, synthetic, transforms
from cdm.data.files import damaged_file

OWN = ('grating 0', 'grating 1', 'grating 2')


@pytest.fixture
def prepared(tmp_path):
  """A prepared data set of ten images in three classes, in three shards."""
  pytest.importorskip('array_record')
  images = synthetic.Synthetic(image_size=8, num_images=10, num_classes=3)
  prepare.prepare(images, size=8, out=tmp_path, records_per_shard=4)
  return tmp_path


def change_index(folder, **entries):
  index = record_format.read_index(folder)
  index.update(entries)
  record_format.write_index(folder, index)


def labels(source):
  return [int(source[i]['label']) for i in range(len(source))]


def test_the_command_of_an_error_holds_for_a_path_with_spaces(tmp_path):
  path = tmp_path / "my photos' set"
  with pytest.raises(ValueError, match='Make one with: ') as error:
    array_record.ArrayRecords(path)
  words = shlex.split(str(error.value).partition('Make one with: ')[2])
  assert words[-1] == f'--out={path}'


def test_prepared_sets_must_be_there_and_whole(tmp_path, request):
  with pytest.raises(
    ValueError, match='not a prepared data set: it has no index'
  ):
    array_record.ArrayRecords(tmp_path)
  request.getfixturevalue('prepared')
  (tmp_path / 'images-00001-of-00003.array_record').unlink()
  with pytest.raises(ValueError, match='images-00001.* is missing'):
    array_record.ArrayRecords(tmp_path)


def test_records_are_counted_from_either_end_and_not_beyond(prepared):
  source = array_record.ArrayRecords(prepared)
  assert len(source) == 10 and source.class_names == OWN
  np.testing.assert_array_equal(source[-1]['image'], source[9]['image'])
  np.testing.assert_array_equal(source[-10]['image'], source[0]['image'])
  for i in (10, -11):
    with pytest.raises(IndexError, match=rf'\[{i}\] of 10'):
      source[i]


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    (None, [0, 1, 2, 0]),
    (OWN, [0, 1, 2, 0]),
    (OWN[::-1], [2, 1, 0, 2]),
    (('other', *OWN), [1, 2, 3, 1]),
    ((), [0, 0, 0, 0]),
  ],
)
def test_labels_are_those_of_the_names_that_are_expected(
  prepared, names, expected
):
  source = array_record.ArrayRecords(prepared, class_names=names)
  assert labels(source)[:4] == expected
  assert source.num_classes == len(OWN if names is None else names)


@pytest.mark.parametrize('names', [OWN[:2], ('a', 'b', 'c'), ('grating 1',)])
def test_a_class_that_is_not_expected_is_refused(prepared, names):
  with pytest.raises(
    ValueError, match='classes that are not among .* of the same classes'
  ):
    array_record.ArrayRecords(prepared, class_names=names)


@pytest.mark.parametrize('names', [('a', 'b', 'c'), ('a', 'b', 'c', 'd')])
def test_labels_without_names_stay_where_enough_are_expected(prepared, names):
  recipe = record_format.read_index(prepared)['recipe'] | {'named': False}
  change_index(prepared, recipe=recipe)
  assert labels(array_record.ArrayRecords(prepared, names))[:4] == [0, 1, 2, 0]
  with pytest.raises(ValueError, match='labels up to 2, but there are 2 class'):
    array_record.ArrayRecords(prepared, class_names=('a', 'b'))


def test_labels_without_classes_stay_and_are_of_no_expected_class(prepared):
  change_index(prepared, class_names=[])
  assert labels(array_record.ArrayRecords(prepared))[:4] == [0, 1, 2, 0]
  with pytest.raises(ValueError, match='has no labels, but 3 classes'):
    array_record.ArrayRecords(prepared, class_names=OWN)


def test_a_label_beyond_the_classes_is_an_unusable_image(prepared):
  change_index(prepared, class_names=list(OWN[:2]))
  source = array_record.ArrayRecords(prepared, class_names=OWN[1::-1])
  assert int(source[0]['label']) == 1
  with pytest.raises(transforms.BadImage, match='label is 2, of 2 classes'):
    source[2]


def test_an_unfinished_set_says_how_far_it_is(prepared):
  shards = record_format.read_index(prepared)['shards']
  change_index(prepared, complete=False, shards=shards[:2])
  with pytest.raises(ValueError, match='unfinished: it has 8 of 10 records'):
    array_record.ArrayRecords(prepared)
  change_index(prepared, shards=[])
  with pytest.raises(ValueError, match=r'unfinished\. Run the same cdm prep'):
    array_record.ArrayRecords(prepared)


def test_an_index_of_another_number_of_records_is_damaged(prepared):
  recipe = record_format.read_index(prepared)['recipe'] | {'records': 9}
  change_index(prepared, recipe=recipe)
  with pytest.raises(damaged_file.DamagedFile, match='of other than 9 records'):
    array_record.ArrayRecords(prepared)


@pytest.mark.parametrize('data', [b'', b'no shard' * 1000])
def test_a_damaged_shard_is_named(prepared, data):
  shard = prepared / 'images-00001-of-00003.array_record'
  shard.write_bytes(data)
  with pytest.raises(damaged_file.DamagedFile, match='images-00001.* damaged'):
    array_record.ArrayRecords(prepared)


def test_a_shard_of_too_few_records_is_named(prepared):
  first, *_, last = sorted(prepared.glob('images-*'))
  first.write_bytes(last.read_bytes())
  with pytest.raises(
    damaged_file.DamagedFile, match='00000-of-.* has 2 records and .* says 4'
  ):
    array_record.ArrayRecords(prepared)


def test_of_many_shards_only_those_are_opened_that_are_read(
  prepared, monkeypatch
):
  """In this process, and again in each that a pickled source goes to."""
  from array_record.python import array_record_data_source

  module = array_record_data_source.array_record_module
  opened, reader = [], module.ArrayRecordReader

  def count(path, *args, **kwargs):
    opened.append(os.path.basename(path)[:12])
    return reader(path, *args, **kwargs)

  monkeypatch.setattr(module, 'ArrayRecordReader', count)
  monkeypatch.setattr(array_record, 'FEW_SHARDS', 2)
  source = pickle.loads(pickle.dumps(array_record.ArrayRecords(prepared)))
  assert len(source) == 10 and opened == []
  images = synthetic.Synthetic(image_size=8, num_images=10, num_classes=3)
  for i in (5, 7, 4):
    np.testing.assert_array_equal(source[i]['image'], images[i]['image'])
  assert opened == ['images-00001']
  # A cut shard is found by its size, before it is read.
  os.truncate(prepared / 'images-00000-of-00003.array_record', 70)
  with pytest.raises(damaged_file.DamagedFile, match='images-00000.* damaged'):
    array_record.ArrayRecords(prepared)


def test_sizes_are_added_to_a_set_of_an_earlier_version(prepared, monkeypatch):
  index = record_format.read_index(prepared)
  sizes = [shard.pop('bytes') for shard in index['shards']]
  record_format.write_index(prepared, index)
  monkeypatch.setattr(array_record, 'FEW_SHARDS', 0)
  assert labels(array_record.ArrayRecords(prepared))[:4] == [0, 1, 2, 0]
  images = synthetic.Synthetic(image_size=8, num_images=10, num_classes=3)
  prepare.prepare(images, size=8, out=prepared, records_per_shard=4)
  added = record_format.read_index(prepared)['shards']
  assert [shard['bytes'] for shard in added] == sizes


def test_shards_in_a_bucket_are_read_as_those_on_a_disk(tmp_path):
  pytest.importorskip('array_record')
  from support import gcs_server  # skips where the clients are missing

  images = synthetic.Synthetic(image_size=8, num_images=10)
  prepare.prepare(images, size=8, out=tmp_path / 'set', records_per_shard=4)
  here = array_record.ArrayRecords(tmp_path / 'set')
  section = {'kind': 'array_records', 'path': 'gs://bucket/set'}
  with gcs_server.used(tmp_path / 'cache') as cloud:
    with pytest.raises(ValueError, match='not a prepared data set'):
      datasets.open_source(section)
    for path in (tmp_path / 'set').iterdir():
      cloud.put('bucket', f'set/{path.name}', path.read_bytes())
    there = datasets.open_source(section)
    assert there.fingerprint == here.fingerprint
    assert there.class_names == here.class_names
    for i in range(10):
      np.testing.assert_array_equal(there[i]['image'], here[i]['image'])
      assert there[i]['label'] == here[i]['label']
    with pytest.raises(ValueError, match="there is no bucket 'another'"):
      datasets.open_source(section | {'path': 'gs://another/set'})
    del cloud.objects['bucket', 'set/images-00001-of-00003.array_record']
    with pytest.raises(ValueError, match='images-00001.*No such object'):
      datasets.open_source(section)
