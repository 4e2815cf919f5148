"""Tars in the layout of image-net.org's, with generated images."""

import logging
import pickle
import tarfile

import numpy as np
import pytest
from support import small_archives as small

from cdm.config import datasets
from cdm.data import folder, transforms
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms.imagenet_tar import ImagenetTar
from cdm.data.forms.webdataset import Webdataset

SYNSETS = ('n02119789', 'n01440764', 'n03000000')


@pytest.fixture
def train(tmp_path):
  return small.write_imagenet_train(
    tmp_path / 'ILSVRC2012_img_train.tar', SYNSETS
  )


def unpack(path, to):
  to.mkdir()
  with tarfile.open(path) as tar:
    tar.extractall(to, filter='data')
  return to


def test_images_labels_and_order_are_those_of_unpacked_folders(train, tmp_path):
  source = pickle.loads(pickle.dumps(ImagenetTar(train)))
  tars = unpack(train, tmp_path / 'tars')
  for path in (train, tars):
    assert ImagenetTar.holds(str(path)) and not Webdataset.holds(str(path))
  for synset in SYNSETS:
    unpack(tars / f'{synset}.tar', tmp_path / 'tars' / synset)
  unpacked = folder.Folder(tmp_path / 'tars')
  assert tuple(source.file_names()) == unpacked.files
  assert source.class_names == unpacked.class_names == tuple(sorted(SYNSETS))
  assert source.named
  for i in range(len(unpacked)):
    np.testing.assert_array_equal(source[i]['image'], unpacked[i]['image'])
    assert source[i]['label'] == unpacked[i]['label']
  of_tars = ImagenetTar(tars)
  assert of_tars.fingerprint == source.fingerprint
  assert of_tars.encoded(3).data == source.encoded(3).data
  opened = datasets.open_source({'kind': 'imagenet_tar', 'path': str(train)})
  assert opened.fingerprint == source.fingerprint
  assert not ImagenetTar.holds(str(tars))  # tars beside what was unpacked


def test_labels_follow_the_names_that_are_asked_for(train):
  names = (*sorted(SYNSETS, reverse=True), 'n09999999')
  assert ImagenetTar(train, names).labels.tolist() == [2, 2, 1, 1, 0, 0]
  assert ImagenetTar(train, class_names=()).num_classes == 0
  with pytest.raises(ValueError, match="2 classes .* first 'n02119789'"):
    ImagenetTar(train, class_names=SYNSETS[1:2])


def test_validation_images_have_no_labels(tmp_path):
  path = small.write_imagenet_val(tmp_path / 'ILSVRC2012_img_val.tar')
  assert ImagenetTar.holds(str(path)) and not Webdataset.holds(str(path))
  with pytest.raises(ValueError, match='holds images without labels. Give'):
    ImagenetTar(path)
  source = ImagenetTar(path, class_names=())
  assert (len(source), source.num_classes) == (3, 0)
  assert source.encoded(2).data == small.jpeg(2)
  table = tmp_path / 'LOC_val_solution.csv'
  lines = [
    f'ILSVRC2012_val_{n:08d},{s} 1 2 3 4' for n, s in enumerate(SYNSETS, 1)
  ]
  text = '\n'.join(['ImageId,PredictionString', *reversed(lines)])
  table.write_text(text, encoding='utf-8')
  source = ImagenetTar(path, labels=str(table))
  assert source.class_names == tuple(sorted(SYNSETS))
  assert source.labels.tolist() == [1, 0, 2]


@pytest.mark.parametrize('cut', [600, 3072, -10240, -20000])
def test_an_unfinished_download_is_told_by_its_size(train, cut):
  train.write_bytes(train.read_bytes()[:cut])
  with pytest.raises(
    DamagedFile, match='has 147,897,477,120 bytes .* was not finished'
  ):
    ImagenetTar(train)


def test_a_part_that_was_not_written_is_found(train):
  """A download in several parts has its whole length from the beginning."""
  data = bytearray(train.read_bytes())
  data[3000 : len(data)] = bytes(len(data) - 3000)
  train.write_bytes(data + bytes(2 << 20))
  with pytest.raises(DamagedFile, match='n02119789.tar is damaged|ends there'):
    ImagenetTar(train)


def test_another_number_of_images_is_said(train, caplog):
  with caplog.at_level(logging.WARNING):
    ImagenetTar(train)
  assert 'is not the official ILSVRC2012_img_train.tar: it has 6 of' in (
    caplog.text
  )


@pytest.mark.parametrize(
  ('members', 'message'),
  [
    ({'a.jpg': b'', 'a.cls': b''}, "none of Ima.* begins with a.jpg. .*='webd"),
    ({'n01440764.tar': b'x' * 10240}, 'n01440764.tar is damaged at byte 512'),
    (
      {'n01440764.tar': small.tar_bytes({'n02119789_1.JPEG': b''})},
      'n02119789_1.JPEG in n01440764.tar, which is another class',
    ),
    (
      {'n01440764.tar': small.tar_bytes({'../../a.JPEG': b''})},
      'n01440764.tar has a member named ../../a.JPEG, which leads out',
    ),
    ({'n01440764.tar': small.tar_bytes({'a.txt': b''})}, 'has no images'),
  ],
)
def test_tars_that_are_not_as_they_should_be_are_refused(
  tmp_path, members, message
):
  path = tmp_path / 'x.tar'
  path.write_bytes(small.tar_bytes(members))
  with pytest.raises(ValueError, match=message):
    ImagenetTar(path)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
    (b'<html>Log in</html>', 'It is a web page'),
    (b'\x1f\x8b' + bytes(99), 'gunzip '),
  ],
)
def test_what_is_no_tar_is_named(train, data, message):
  train.write_bytes(data)
  assert ImagenetTar.holds(str(train))
  with pytest.raises(ValueError, match=message):
    ImagenetTar(train)


def test_a_folder_of_other_tars_is_refused(train, tmp_path):
  with pytest.raises(ValueError, match='such as n01440764.tar, but ILSVRC2012'):
    ImagenetTar(tmp_path)


def test_one_bad_image_loses_no_other(tmp_path):
  inner = {'n01440764_1.JPEG': b'x', 'n01440764_2.JPEG': small.jpeg(2)}
  path = tmp_path / 'n01440764.tar'
  path.write_bytes(small.tar_bytes(inner))
  source = ImagenetTar(path)
  with pytest.raises(transforms.BadImage, match='n01440764/n01440764_1.JPEG'):
    source[0]
  assert source[1]['label'] == 0 and source.class_names == ('n01440764',)
