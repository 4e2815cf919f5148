"""Shards as webdataset's ShardWriter writes them, and as others do."""

import json
import logging
import pickle
import tarfile

import numpy as np
import pytest
from support import small_archives as small

from cdm.config import datasets
from cdm.data import image_decoder, transforms
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms.webdataset import Webdataset


def same_pixels(source, i, number):
  expected = image_decoder.decode(small.jpeg(number), name='').pixels
  np.testing.assert_array_equal(source[i]['image'], expected)


def test_images_and_labels_are_those_of_the_samples(tmp_path):
  small.write_webdataset(tmp_path, [3, 0, 2, 1, 3])
  source = pickle.loads(pickle.dumps(Webdataset(tmp_path)))
  assert [int(source[i]['label']) for i in range(5)] == [3, 0, 2, 1, 3]
  assert source.num_classes == 4 and not source.named
  for i in range(5):
    same_pixels(source, i, i)
    assert source.encoded(i).data == small.jpeg(i)
  assert source.name_of(3) == (
    f'{tmp_path}/imagenet-train-000001.tar[3] 00000003.jpg'
  )
  opened = datasets.open_source({'kind': 'webdataset', 'path': str(tmp_path)})
  assert opened.fingerprint == source.fingerprint


def test_one_shard_and_patterns_of_shards_are_read(tmp_path):
  small.write_webdataset(tmp_path, [3, 0, 2, 1, 3])
  first = tmp_path / 'imagenet-train-000000.tar'
  assert Webdataset(first).labels.tolist() == [3, 0]
  pattern = str(tmp_path / 'imagenet-train-{000001..000002}.tar')
  assert Webdataset(pattern).labels.tolist() == [2, 1, 3]
  either = str(tmp_path / 'imagenet-{train,x}-{000000,000002}.tar')
  with pytest.raises(ValueError, match='2 of the 4 shards .*imagenet-x-000000'):
    Webdataset(either)
  assert Webdataset(either.replace(',x', '')).labels.tolist() == [3, 0, 3]
  assert Webdataset.holds(pattern) and Webdataset.holds(str(tmp_path))
  assert Webdataset.holds(str(first)) and not Webdataset.holds('a{b}')
  assert not Webdataset.holds(str(tmp_path / 'nowhere\0'))
  (tmp_path / 'unpacked.png').touch()
  assert not Webdataset.holds(str(tmp_path))  # a tar beside pictures


def write(path, members, **options):
  path.write_bytes(small.tar_bytes(members, **options))
  return path


@pytest.fixture
def shard(tmp_path):
  return tmp_path / '000000.tar'


@pytest.mark.parametrize(
  ('entries', 'label_key'),
  [
    ({'label': 2}, None),
    ({'class_label': 2, 'caption': 'a dog'}, None),
    ({'label': 'dog', 'fine': 2}, 'fine'),
  ],
)
def test_labels_may_be_in_json(shard, entries, label_key):
  members = {
    'x/a.png': small.png(0),
    'x/a.json': json.dumps(entries).encode(),
    'x/a.txt': b'a caption',
  }
  write(shard, members, format=tarfile.PAX_FORMAT)
  source = Webdataset(shard, label_key=label_key)
  assert source.labels.tolist() == [2] and source.file_names()[0] == 'x/a.png'
  named = Webdataset(shard, ('a', 'b', 'c'), label_key=label_key)
  assert named.class_names == ('a', 'b', 'c') and named.named
  names = json.dumps(['d', 'e', 'f'])
  (shard.parent / 'classes.json').write_text(names, encoding='utf-8')
  assert Webdataset(shard, label_key=label_key).class_names == ('d', 'e', 'f')


def test_images_without_labels_have_no_classes(shard):
  files = {'a.jpg': small.jpeg(0), 'a.txt': b'', 'a.json': b'{"width": 3}'}
  write(shard, files | {'b.txt': b'', '._a.jpg': b'', 'c': b''})
  source = Webdataset(shard)
  assert (len(source), source.num_classes) == (1, 0)


def test_an_image_is_chosen_among_several(shard):
  write(
    shard, {'a.seg.png': b'', 'a.jpg': small.jpeg(0), 'a.PNG': small.png(1)}
  )
  with pytest.raises(
    ValueError, match='several images .* a: jpg, png. Set ima'
  ):
    Webdataset(shard)
  source = Webdataset(shard, image_key='.png')
  np.testing.assert_array_equal(source[0]['image'], small.pixels(1))


JPG = {'a.jpg': small.jpeg(0)}


@pytest.mark.parametrize(
  ('members', 'message'),
  [
    (JPG | {'a.cls': b'dog'}, "a.cls says 'dog'; a label was expected"),
    (JPG | {'a.cls': b'-1'}, 'has the label -1; labels from 0'),
    (JPG | {'a.cls': b'999999999'}, 'at most 100,000 classes'),
    (JPG | {'a.cls': bytes(2 << 20)}, 'a.cls has 2,097,152 bytes; the label'),
    (JPG | {'a.json': b'{"label": '}, 'a.json is damaged, it is not JSON'),
    (JPG | {'a.json': b'{"label": "dog"}'}, "a.json has the label 'dog'"),
    (JPG | {'b.cls': b'', 'b.jpg': b''}, "b.cls says ''"),
    (JPG | {'b.cls': b'1', 'b.jpg': b''}, 'a.jpg and 0 other .* have no label'),
    (JPG | {'b.jpg': b'', 'a.cls': b'1'}, 'has the sample a twice'),
    ({'a.txt': b''}, 'has no images'),
    ({'../a.jpg': b''}, 'leads out of the archive'),
    ({}, 'has no images'),
  ],
)
def test_shards_that_would_be_misread_are_refused(shard, members, message):
  write(shard, members)
  with pytest.raises(ValueError, match=message):
    Webdataset(shard)


def test_labels_that_are_not_wanted_are_not_read(shard):
  write(shard, JPG | {'a.cls': b'dog'})
  assert Webdataset(shard, class_names=()).num_classes == 0
  with pytest.raises(ValueError, match='have no label: id was expected'):
    Webdataset(shard, label_key='id')


def test_a_label_file_takes_the_place_of_the_labels_inside(shard):
  write(shard, JPG | {'a.cls': b'dog'})
  table = shard.parent / 'labels.csv'
  table.write_text('image,label\na.jpg,cat\n', encoding='utf-8')
  assert Webdataset(shard, labels=str(table)).class_names == ('cat',)


def test_splits_that_lie_together_are_not_mixed(tmp_path):
  small.write_webdataset(tmp_path, [0, 1, 0], name='imagenet1k-train-%04d')
  small.write_webdataset(tmp_path, [0, 1], name='imagenet1k-validation-%02d')
  with pytest.raises(ValueError, match=r'several .*train-\{0000..0001\}.tar'):
    Webdataset(tmp_path)


def test_a_shard_that_is_not_there_is_said(tmp_path, caplog):
  small.write_webdataset(tmp_path, [0] * 8)
  (tmp_path / 'imagenet-train-000002.tar').unlink()
  with caplog.at_level(logging.WARNING):
    assert len(Webdataset(tmp_path)) == 6
  assert 'has 3 shards, and 1 between the first' in caplog.text
  with pytest.raises(ValueError, match='1 of the 4 shards of'):
    Webdataset(tmp_path / 'imagenet-train-{000000..000003}.tar')
  with pytest.raises(ValueError, match='does not exist; give a shard'):
    Webdataset(tmp_path / 'other.tar')


def test_one_bad_image_loses_no_other_and_a_cut_shard_is_refused(shard):
  pointer = b'version https://git-lfs.github.com/spec/v1'
  data = small.tar_bytes(JPG | {'b.jpg': pointer, 'c.jpg': small.jpeg(2)})
  shard.write_bytes(data)
  source = Webdataset(shard)
  with pytest.raises(
    transforms.BadImage, match=r'000000.tar\[1\] b.jpg: it is'
  ):
    source[1]
  same_pixels(source, 2, 2)
  with pytest.raises(transforms.BadImage, match='too many for an image'):
    Webdataset(shard, max_pixels=9)[0]
  for cut in (700, 1536):
    shard.write_bytes(data[:cut])
    with pytest.raises(DamagedFile, match='000000.tar .*ownload it again'):
      Webdataset(shard)
