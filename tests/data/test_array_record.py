import numpy as np
import pytest

from cdm.config import datasets
from cdm.data import array_record, prepare, synthetic


def test_prepared_sets_must_be_there_and_whole(tmp_path):
  with pytest.raises(
    ValueError, match='not a prepared data set: it has no index'
  ):
    array_record.ArrayRecords(tmp_path)
  pytest.importorskip('array_record')
  images = synthetic.Synthetic(image_size=8, num_images=10)
  prepare.prepare(images, size=8, out=tmp_path, records_per_shard=4)
  (tmp_path / 'images-00001-of-00003.array_record').unlink()
  with pytest.raises(ValueError, match='images-00001.* is missing'):
    array_record.ArrayRecords(tmp_path)


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
