"""Zips as StyleGAN's and EDM's tools write them, and zips of class folders."""

import io
import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from support import small_archives as small

from cdm.config import datasets
from cdm.data import folder, transforms
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import zip_images
from cdm.data.forms.zip_images import ZipImages


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'set.zip'


def edm(path, labels, compression=zipfile.ZIP_STORED):
  small.write_zip(path, small.edm_members(labels), compression)
  return ZipImages(path)


@pytest.mark.parametrize(
  'compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
)
def test_labels_and_pixels_are_those_of_the_tool_that_wrote_it(
  path, compression
):
  source = edm(path, [3, 0, 2], compression)
  assert (source.num_classes, source.named) == (4, False)
  for i, label in enumerate((3, 0, 2)):
    element = pickle.loads(pickle.dumps(source))[i]
    np.testing.assert_array_equal(element['image'], small.pixels(i))
    assert element['label'] == label
    assert source.encoded(i).data == small.png(i)
  assert source.file_names()[1] == '00000/img00000001.png'
  assert ZipImages.holds(str(path))
  section = {'kind': 'zip', 'path': str(path)}
  assert datasets.open_source(section).fingerprint == source.fingerprint
  assert edm(path, [3, 0, 1]).fingerprint != source.fingerprint


def test_one_hot_vectors_are_classes(path):
  source = edm(path, [[0, 1, 0], [1.0, 0, 0]])
  assert source.labels.tolist() == [1, 0] and source.num_classes == 3


def test_names_beside_the_zip_are_those_of_its_labels(path):
  names = ('cat', 'dog', 'owl')
  (path.parent / 'classes.json').write_text(json.dumps(names), encoding='utf-8')
  source = edm(path, [1, 0])
  assert source.class_names == names and source.named
  source = ZipImages(path, class_names=('owl', 'dog', 'cat'))
  assert source.labels.tolist() == [1, 2]
  assert ZipImages(path, class_names=()).num_classes == 0


def test_a_label_file_takes_the_place_of_the_labels_inside(path):
  edm(path, [1, 0])
  table = path.parent / 'labels.txt'
  text = 'img00000001.png cat\nimg00000000.png owl\n'
  table.write_text(text, encoding='utf-8')
  source = ZipImages(path, labels=str(table))
  assert source.class_names == ('cat', 'owl') and source.named
  assert source.labels.tolist() == [1, 0]


def test_folders_of_numbers_are_no_classes(path):
  assert edm(path, 2).num_classes == 0
  members = small.edm_members(2)
  del members['dataset.json']
  members['00001/img00001000.png'] = small.png(3)
  small.write_zip(path, members)
  assert ZipImages(path).num_classes == 0


@pytest.mark.parametrize(
  ('label', 'message'),
  [
    (1.5, 'the label 1.5, which is no class'),
    ([0.2, 0.8], r'\[0.2, 0.8\], which is no class'),
    ([1, 1], 'which is no class'),
    ('cat', "'cat', which is no class"),
    (True, 'which is no class'),
    (-1, 'has the label -1'),
    (10**30, 'at most 100,000 classes are allowed'),
  ],
)
def test_labels_that_are_no_classes_are_refused(path, label, message):
  with pytest.raises(ValueError, match=message):
    edm(path, [label])


@pytest.mark.parametrize(
  ('listed', 'message'),
  [
    (b'{"labels": [["00000/img', 'is damaged, it is not JSON'),
    (b'[]', 'is a list, not an object|is damaged'),
    (b'{}', "has no 'labels'"),
    (b'{"labels": [["00000/img00000000.png"]]}', '1 entries, not 2'),
    (b'{"labels": [["00000/img00000000.png", 1]]}', 'no label for 1 of the 2'),
    (b'{"labels": {"a.png": 1}}', 'lists 1 images that are not there.*a.png'),
    (b'{"labels": [["a.png", 1], ["a.png", 2]]}', 'gives a.png two labels'),
    (b'{"labels": {"img.npy": 1}}', 'holds 1 arrays .* such as the latents'),
  ],
)
@pytest.mark.parametrize('as_folder', [False, True])
def test_a_list_of_labels_that_does_not_fit_is_refused(
  path, listed, message, as_folder
):
  members = small.edm_members(2) | {'dataset.json': listed}
  small.write_zip(path, members)
  with pytest.raises(ValueError, match=message):
    read_folder(path) if as_folder else ZipImages(path)


def read_folder(path):
  with zipfile.ZipFile(path) as archive:
    archive.extractall(path.parent / 'folder')
  return folder.Folder(path.parent / 'folder')


def test_a_folder_with_dataset_json_has_its_labels(path):
  source = edm(path, [3, 0, 2])
  unpacked = read_folder(path)
  assert unpacked.labels.tolist() == [3, 0, 2]
  assert unpacked.class_names == source.class_names and not unpacked.named
  assert unpacked.files == tuple(source.file_names())
  path = path.parent / 'folder'
  assert folder.Folder(path, class_names=()).num_classes == 0
  named = folder.Folder(path, class_names=('a', 'b', 'c', 'd'))
  assert named.labels.tolist() == [3, 0, 2] and named.class_names[3] == 'd'
  before = unpacked.fingerprint
  text = (path / 'dataset.json').read_text(encoding='utf-8')
  (path / 'dataset.json').write_text(text.replace('3]', '1]'), encoding='utf-8')
  assert folder.Folder(path).fingerprint != before


@pytest.mark.parametrize('around', ['', 'train/', 'data/train/'])
def test_folders_are_classes_as_they_are_of_a_folder(path, around):
  members = {
    f'{around}{name}/{n}.png': small.png(n)
    for n, name in enumerate(('10', '9', '9'))
  }
  members |= {f'__MACOSX/{around}9/._1.png': b'x', f'{around}9/a.txt': b''}
  small.write_zip(path, members)
  source = ZipImages(path)
  assert source.class_names == ('9', '10') and source.named
  assert source.labels.tolist() == [1, 0, 0]
  assert ZipImages(path, ('10', '8', '9')).labels.tolist() == [0, 2, 2]
  members[f'{around}a.png'] = small.png(1)
  small.write_zip(path, members)
  with pytest.raises(ValueError, match='a.png is in none of the 2 class fold'):
    ZipImages(path)


def test_splits_side_by_side_are_read_one_at_a_time(path):
  members = {
    f'{split}/{name}/{n}.png': small.png(n)
    for split in ('train', 'val')
    for n, name in enumerate(('cat', 'dog'))
  }
  small.write_zip(path, members)
  for names in (None, ()):
    with pytest.raises(ValueError, match='Give .*set.zip/train for training'):
      ZipImages(path, class_names=names)
  source = ZipImages(f'{path}/val')
  assert tuple(source.file_names()) == ('cat/0.png', 'dog/1.png')
  assert source.class_names == ('cat', 'dog')
  np.testing.assert_array_equal(source[1]['image'], small.pixels(1))
  assert ZipImages.holds(f'{path}/val') and not ZipImages.holds(f'{path}x/val')
  with pytest.raises(ValueError, match='set.zip/test. has no images'):
    ZipImages(f'{path}/test')


def test_a_lone_folder_is_a_class_if_it_is_named_as_one(path):
  small.write_zip(path, {'dog/0.png': small.png(0)})
  assert ZipImages(path).num_classes == 0
  assert ZipImages(path, class_names=('cat', 'dog')).labels.tolist() == [1]


def test_long_archives_and_streams_are_read(path):
  """Zip64, and sizes that stand behind the data, as pipes are written."""

  class Pipe(io.BytesIO):
    def seekable(self):
      return False

    def tell(self):
      raise OSError('a pipe')

  for file in (Pipe(), io.BytesIO()):
    with zipfile.ZipFile(file, 'w') as archive:
      for n in range(2):
        with archive.open(f'{n}.png', 'w', force_zip64=True) as member:
          member.write(small.png(n))
    path.write_bytes(b'#!/bin/sh\n' + file.getvalue())
    source = ZipImages(path)
    np.testing.assert_array_equal(source[1]['image'], small.pixels(1))


def changed(path, change):
  """Rewrites the bytes of a zip of two images."""
  data = small.write_zip(path, small.edm_members(2)).read_bytes()
  path.write_bytes(change(bytearray(data)))


def encrypt(data):
  at = data.index(b'PK\1\2')
  data[at + 8] |= 1
  return data


def method(data):
  at = data.index(b'PK\1\2')
  data[at + 10] = zipfile.ZIP_LZMA
  return data


def behind(data):
  at = data.index(b'PK\1\2')
  data[at + 42 : at + 46] = b'\0\0\0\x60'
  return data


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda data: data[:-30], 'was cut short or damaged: copy or'),
    (lambda data: b'', 'The file is empty'),
    (
      lambda data: b'version https://git-lfs.github.com/spec/v1',
      'git lfs pull',
    ),
    (lambda data: b'<!DOCTYPE html><html>', 'It is a web page'),
    (lambda data: b'x' * 99, 'It is damaged or of another kind'),
    (encrypt, 'img00000000.png is encrypted. Unpack'),
    (method, 'is compressed with method 14; .* zip -0 -r'),
    (behind, 'img00000000.png ends behind the end of the file'),
  ],
)
def test_a_damaged_zip_is_refused_in_a_sentence(path, change, message):
  changed(path, change)
  with pytest.raises(ValueError, match=message):
    ZipImages(path)


@pytest.mark.parametrize(
  'name', ['../a.png', 'x/../../a.png', '/etc/a.png', 'C:\\a.png', '..\\a.png']
)
def test_a_name_that_leads_out_of_the_zip_is_refused(path, name):
  info = zipfile.ZipInfo('a')
  info.filename = name  # The constructor would change it.
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(info, small.png(0))
  with pytest.raises(DamagedFile, match='which leads out of the archive'):
    ZipImages(path)


def test_members_without_a_meaning_are_refused_or_left_out(path):
  link = zipfile.ZipInfo('link.png')
  link.external_attr = 0o120777 << 16
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(link, '/etc/passwd')
    archive.writestr('a.png', small.png(0))
  assert tuple(ZipImages(path).file_names()) == ('a.png',)
  with zipfile.ZipFile(path, 'a') as archive, pytest.warns(UserWarning):
    archive.writestr('a.png', small.png(1))
  with pytest.raises(DamagedFile, match='has a.png twice, so'):
    ZipImages(path)
  small.write_zip(path, {'img.npy': b'', 'a.png': b''})
  with pytest.raises(ValueError, match='1 arrays .* autoencoder that EDM2'):
    ZipImages(path)
  small.write_zip(path, {'a.txt': b''})
  with pytest.raises(ValueError, match='has no images'):
    ZipImages(path)


def test_one_bad_image_loses_no_other(path):
  members = small.edm_members(3)
  names = list(members)
  members[names[1]] = b'version https://git-lfs'
  small.write_zip(path, members)
  data = bytearray(path.read_bytes())
  at = data.index(b'PNG', data.index(names[2].encode())) + 30
  data[at] ^= 255
  path.write_bytes(data)
  source = ZipImages(path)
  np.testing.assert_array_equal(source[0]['image'], small.pixels(0))
  with pytest.raises(transforms.BadImage, match='img00000001.png: it is a poi'):
    source[1]
  with pytest.raises(transforms.BadImage, match='2.png: it is damaged: its by'):
    source[2]


@pytest.mark.parametrize('claimed', [None, 1000])
def test_a_bomb_is_not_unpacked(path, claimed, monkeypatch):
  """Neither one that says its size, nor one that lies."""
  monkeypatch.setattr(zip_images, 'MOST_UNPACKED_BYTES', 1 << 20)
  small.write_zip(path, {'a.png': bytes(1 << 24)}, zipfile.ZIP_DEFLATED)
  if claimed is not None:
    data = bytearray(path.read_bytes())
    at = data.index(b'PK\1\2')
    data[at + 24 : at + 28] = claimed.to_bytes(4, 'little')
    path.write_bytes(data)
  tracemalloc.start()
  with pytest.raises(transforms.BadImage, match='be unpacked to|is damaged'):
    ZipImages(path)[0]
  assert tracemalloc.get_traced_memory()[1] < 1 << 20
  tracemalloc.stop()
  with pytest.raises(transforms.BadImage, match='too many for|is damaged'):
    ZipImages(path, max_pixels=1000)[0]
