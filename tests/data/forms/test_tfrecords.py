"""TFRecords of NVIDIA's dataset_tool.py and of TF Slim's ImageNet.

`support.tfrecord_sets` writes both.
"""

import concurrent.futures
import gzip
import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from support import tfrecord_sets

from cdm.config import datasets
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import kept_scan, tfrecord_scan
from cdm.data.forms.tfrecords import TFRecords
from cdm.data.transforms import BadImage, UnusableImage

SYNSETS = ('n01440764', 'n01443537', 'n01484850')


def jpeg(n):
  """An image of more bytes than are read at once for the labels."""
  file = io.BytesIO()
  image = tfrecord_sets.pixels(n, 40).transpose(1, 2, 0)
  Image.fromarray(image).save(file, 'JPEG')
  return file.getvalue()


def imagenet(folder, labels=(2, 3, 1, 1, 2), **options):
  images = [
    (jpeg(n), y, SYNSETS[y - 1], f'{SYNSETS[y - 1]}_{n}.JPEG')
    for n, y in enumerate(labels)
  ]
  return tfrecord_sets.slim(folder, images, **options)


ORDER = (0, 2, 4, 1, 3)  # of five images in two files


def test_nvidias_images_come_with_their_exact_pixels(tmp_path):
  folder = tfrecord_sets.nvidia(tmp_path / 'a')
  source = datasets.open_source({'kind': 'tfrecords', 'path': str(folder)})
  assert isinstance(source, TFRecords) and len(source) == 3
  assert source.num_classes == 0
  for n in (2, 0, 1):
    expected = tfrecord_sets.pixels(n, 8).transpose(1, 2, 0)
    np.testing.assert_array_equal(source[n]['image'], expected)
  assert source.encoded(1).data.startswith(b'P6\n8 8\n255\n')
  assert source.name_of(1) == f'{folder}[1] ffhq-r03.tfrecords:1'
  small = TFRecords(folder, resolution=4)
  assert small[0]['image'].shape == (4, 4, 3)
  assert small.fingerprint != source.fingerprint


def test_one_channel_is_grey(tmp_path):
  x = tfrecord_sets.pixels(0, 4, channels=1)
  record = tfrecord_sets.example(shape=x.shape, data=x.tobytes())
  path = tfrecord_sets.write(tmp_path / 'mnist.tfrecords', [record])
  image = TFRecords(path)[0]['image']
  np.testing.assert_array_equal(image, x.repeat(3, 0).transpose(1, 2, 0))


def test_nvidias_labels_are_beside_the_images(tmp_path):
  labels = np.eye(10)[[7, 0, 3]]
  folder = tfrecord_sets.nvidia(tmp_path, name='cifar10', labels=labels)
  source = TFRecords(folder, resolution=4)
  assert source.labels.tolist() == [7, 0, 3] and source[0]['label'] == 7
  assert source.num_classes == 10 and not source.named
  assert TFRecords(folder, class_names=()).num_classes == 0
  names = tuple('abcdefghij')
  assert TFRecords(folder, class_names=names).class_names == names
  (folder / 'cifar10-rxx.labels').write_bytes(b'<html>')
  with pytest.raises(DamagedFile, match='cannot be read as an .npy'):
    TFRecords(folder)
  assert len(TFRecords(folder, class_names=())) == 3


def test_labels_may_be_in_a_file(tmp_path):
  file = tmp_path / 'labels.txt'
  file.write_text('dog\ncat\ndog\n', encoding='utf-8')
  folder = tfrecord_sets.nvidia(tmp_path, labels=np.zeros((3, 2)))
  source = TFRecords(folder, labels=file)
  assert source.class_names == ('cat', 'dog')
  assert source.labels.tolist() == [1, 0, 1]


def test_imagenet_of_tf_slim_is_read_with_its_synsets(tmp_path):
  source = TFRecords(imagenet(tmp_path))
  assert source.class_names == SYNSETS
  assert source.labels.tolist() == [(1, 2, 0, 0, 1)[n] for n in ORDER]
  assert [source.encoded(k).data for k in range(5)] == list(map(jpeg, ORDER))
  assert source.file_names()[3] == f'{SYNSETS[2]}_1.JPEG'
  assert source[3]['image'].shape == (40, 40, 3) and source[3]['label'] == 2
  turned = TFRecords(tmp_path, class_names=SYNSETS[::-1])
  assert turned.labels.tolist() == [(1, 0, 2, 2, 1)[n] for n in ORDER]
  assert turned.fingerprint != source.fingerprint


def test_a_split_is_chosen_by_its_name(tmp_path):
  imagenet(tmp_path)
  imagenet(tmp_path, (1,), split='validation', files=1)
  with pytest.raises(ValueError, match=r"splits \('train', 'validation'\)"):
    TFRecords(tmp_path)
  assert len(TFRecords(tmp_path, split='validation')) == 1
  os.unlink(tmp_path / 'train-00000-of-00002')
  with pytest.raises(DamagedFile, match='first missing one is number 0'):
    TFRecords(tmp_path, split='train')
  assert len(TFRecords(tmp_path / 'train-00001-of-00002')) == 2


def one_file(tmp_path, *records):
  return tfrecord_sets.write(tmp_path / 'a.tfrecord', records)


def labelled(label, **more):
  return tfrecord_sets.example(
    image__encoded=jpeg(0), image__class__label=[label], **more
  )


def test_classes_without_synsets_are_named_by_their_texts(tmp_path):
  path = one_file(
    tmp_path,
    labelled(3, image__class__text=b'crane'),
    labelled(1, image__class__text=b'dog'),
    labelled(2, image__class__text=b'crane'),
  )
  source = TFRecords(path)
  assert source.class_names == ('dog', 'crane (1)', 'crane (2)')
  assert source.labels.tolist() == [2, 0, 1] and source.named
  path = one_file(
    tmp_path,
    labelled(3, image__class__text=b'crane'),
    labelled(3, image__class__text=b'dog'),
  )
  with pytest.raises(DamagedFile, match="the label 3 both 'crane' and 'dog'"):
    TFRecords(path)


def test_numbers_alone_are_labels_if_they_count_from_0(tmp_path):
  source = TFRecords(one_file(tmp_path, labelled(0), labelled(2), labelled(-1)))
  assert source.labels.tolist() == [0, 2, -1] and not source.named
  assert source.class_names == ('0', '1', '2')
  path = one_file(tmp_path, labelled(1), labelled(2))
  with pytest.raises(ValueError, match='from 1 to 2 and no names .*class 0 ex'):
    TFRecords(path)
  assert len(TFRecords(path, class_names=())) == 2
  path = one_file(tmp_path, labelled(10**8))
  with pytest.raises(DamagedFile, match='to 100000000, and at most'):
    TFRecords(path)
  path = one_file(tmp_path, tfrecord_sets.example(image__encoded=jpeg(0)))
  assert TFRecords(path).num_classes == 0


def test_a_long_listing_is_announced(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(tfrecord_scan, '_LARGE_BYTES', 100)
  TFRecords(imagenet(tmp_path))
  assert 'Listing the records of 2 TFRecord files' in caplog.text


def test_records_of_another_kind_are_refused_with_their_features(tmp_path):
  path = one_file(tmp_path, tfrecord_sets.example(image=jpeg(0), label=[1]))
  with pytest.raises(ValueError, match=r"features \('image', 'label'\). Known"):
    TFRecords(path)
  with pytest.raises(DamagedFile, match='Record 0 of .* is no Example of Tens'):
    TFRecords(one_file(tmp_path, b'\xff' * 40))
  with pytest.raises(ValueError, match='a.tfrecord has no records'):
    TFRecords(one_file(tmp_path))


@pytest.mark.parametrize(
  'data, message',
  [
    (b'version https://git-lfs.github.com/spec/v1\n', 'a pointer of Git LFS'),
    (b'<!DOCTYPE html><html>Log in</html>', 'with a TFRecord. It is a web pa'),
    (b'\0' * 500, 'does not begin with a TFRecord'),
    (b'short', 'is cut short inside of record 0'),
  ],
)
def test_a_file_of_another_kind_is_named(tmp_path, data, message):
  path = tfrecord_sets.nvidia(tmp_path) / 'ffhq-r03.tfrecords'
  path.write_bytes(data)
  with pytest.raises(DamagedFile, match=f'{path}.*{message}'):
    TFRecords(tmp_path)


def test_a_compressed_file_is_named_with_the_way_out(tmp_path):
  path = one_file(tmp_path, labelled(0))
  path.write_bytes(gzip.compress(path.read_bytes()))
  with pytest.raises(ValueError, match='is compressed as a whole.*gunzip'):
    TFRecords(path)


@pytest.mark.parametrize('cut', [1, 5, 100, 250])
def test_a_file_that_is_cut_short_is_named_with_the_record(tmp_path, cut):
  path = tfrecord_sets.nvidia(tmp_path) / 'ffhq-r03.tfrecords'
  with open(path, 'rb+') as file:
    file.truncate(os.path.getsize(path) - cut)
  record = 2 if cut < 249 else 1
  with pytest.raises(
    DamagedFile, match=f'cut short inside of record {record}:'
  ):
    TFRecords(tmp_path)


def flip(path, at):
  with open(path, 'rb+') as file:
    file.seek(at)
    byte = file.read(1)
    file.seek(at)
    file.write(bytes([byte[0] ^ 1]))


def test_a_damaged_length_is_noticed_and_a_damaged_image_loses_itself(tmp_path):
  path = tfrecord_sets.nvidia(tmp_path) / 'ffhq-r03.tfrecords'
  size = os.path.getsize(path) // 3
  flip(path, size + 100)
  source = TFRecords(tmp_path)
  with pytest.raises(
    BadImage, match=r'\[1\] .*: the record is damaged \(its d'
  ):
    source[1]
  assert source[2]['image'].shape == source[0]['image'].shape == (8, 8, 3)
  flip(path, 2 * size)
  with pytest.raises(DamagedFile, match='length of record 2 .* does not match'):
    TFRecords(tmp_path)


def test_pixels_of_another_shape_lose_one_image(tmp_path):
  good = tfrecord_sets.pixels(0, 4)
  path = one_file(
    tmp_path,
    tfrecord_sets.example(shape=good.shape, data=good.tobytes()),
    tfrecord_sets.example(shape=[3, 4, 5], data=good.tobytes()),
    tfrecord_sets.example(shape=[4, 4, 3], data=good.tobytes()),
    tfrecord_sets.example(shape=[3, -4, -4], data=good.tobytes()),
    tfrecord_sets.example(shape=[3, 4, 4]),
    tfrecord_sets.example(data=good.tobytes()),
  )
  source = TFRecords(path)
  assert source[0]['image'].shape == (4, 4, 3)
  for n, reason in enumerate(
    ('48 bytes of pixels', 'its shape is', 'its shape is', 'no feature data',
     'its shape is'),
    1,
  ):  # fmt: skip
    with pytest.raises(BadImage, match=rf'\[{n}\] .*{reason}'):
      source[n]


def test_a_record_too_large_for_an_image_is_not_read(tmp_path, monkeypatch):
  monkeypatch.setattr('cdm.data.forms.tfrecords._OTHER_BYTES', 0)
  source = TFRecords(tfrecord_sets.nvidia(tmp_path), max_pixels=10)
  with pytest.raises(UnusableImage, match='bytes, too many for an image of'):
    source[0]


def test_a_kept_list_gives_the_same_source(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_scan, 'LEAST_SECONDS', 0.0)
  for path in imagenet(tmp_path).iterdir():
    os.utime(path, (1e9, 1e9))
  first = TFRecords(tmp_path)
  monkeypatch.setattr(tfrecord_scan, '_scan', None)
  again = TFRecords(tmp_path)
  assert again.fingerprint == first.fingerprint
  assert again.class_names == SYNSETS and again.encoded(1).data == jpeg(2)
  assert list(again.file_names()) == list(first.file_names())


def test_it_can_be_pickled_and_read_by_many_threads(tmp_path):
  source = pickle.loads(pickle.dumps(TFRecords(imagenet(tmp_path))))
  order = np.random.default_rng(0).permutation(200) % 5
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    found = list(threads.map(lambda n: source.encoded(int(n)).data, order))
  assert found == [jpeg(ORDER[n]) for n in order]
  assert source.fingerprint == TFRecords(tmp_path).fingerprint


def test_what_a_path_holds_is_told_by_names(tmp_path):
  assert not TFRecords.holds(str(tmp_path))
  assert not TFRecords.holds(str(tmp_path / 'a.tfrecords'))
  folder = tfrecord_sets.nvidia(tmp_path / 'a')
  assert TFRecords.holds(str(folder))
  assert TFRecords.holds(str(folder / 'ffhq-r03.tfrecords'))
  (folder / 'dataset_info.json').write_text('{}', encoding='utf-8')
  assert not TFRecords.holds(str(folder))
