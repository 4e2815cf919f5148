"""Folders and prepared shards as sources."""

import pickle

import numpy as np
import pytest
from PIL import Image

from cdm.data import folder, transforms


def test_sub_folders_are_classes_in_sorted_order(write_folder, tmp_path):
  write_folder(tmp_path, 7, classes=('n02', 'n10', 'n01'))
  source = folder.Folder(tmp_path)
  assert source.class_names == ('n01', 'n02', 'n10') and source.num_classes == 3
  for i in range(len(source)):
    element = source[i]
    number = int(element['image'][0, 0, 0])  # file i lies in folder i % 3
    assert element['label'] == {0: 1, 1: 2, 2: 0}[number % 3]
    assert element['label'].dtype == np.int32


@pytest.mark.parametrize(
  'names, order',
  [
    (('10', '9', '1', '100'), ('1', '9', '10', '100')),
    (('10', '9', 'x1'), ('10', '9', 'x1')),  # one is not a number
    (('02', '1', '10'), ('1', '02', '10')),
  ],
)
def test_numeric_class_folders_sort_by_their_number(
  names, order, write_folder, tmp_path
):
  write_folder(tmp_path, len(names), classes=names)
  source = folder.Folder(tmp_path)
  assert source.class_names == order
  for i, file in enumerate(source.files):
    assert order[source[i]['label']] == file.split('/')[0]


def test_given_class_names_fix_the_labels(write_folder, tmp_path):
  """A validation folder that lacks a class keeps the labels of training."""
  write_folder(tmp_path, 4, classes=('cat', 'dog'))
  source = folder.Folder(tmp_path, class_names=('bird', 'dog', 'cat'))
  assert {int(e['label']) for e in (source[0], source[1])} == {2}
  assert source.num_classes == 3


def test_flat_folders_have_no_classes(write_folder, tmp_path):
  write_folder(tmp_path, 3, classes=())
  source = folder.Folder(tmp_path)
  assert (len(source), source.num_classes, source.class_names) == (3, 0, ())
  assert [int(source[i]['image'][0, 0, 0]) for i in range(3)] == [0, 1, 2]
  assert source[2]['label'] == 0


def test_folders_of_thousands_can_mean_nothing(write_folder, tmp_path):
  write_folder(tmp_path, 4, classes=('00000', '01000'))
  assert folder.Folder(tmp_path, class_names=()).num_classes == 0


def test_nested_and_hidden_files(write_folder, tmp_path):
  deep = tmp_path / 'dog' / '2019'
  deep.mkdir(parents=True)
  write_folder(deep, 2, classes=(), suffix='.JPEG')
  write_folder(tmp_path, 1, classes=('.thumbnails',))
  (tmp_path / 'dog' / '._0000.JPEG').write_bytes(b'resource fork')
  (tmp_path / 'README.txt').write_text('not an image', encoding='utf-8')
  source = folder.Folder(tmp_path)
  assert source.files == ('dog/2019/0000.JPEG', 'dog/2019/0001.JPEG')
  assert source.class_names == ('dog',)


def test_the_short_side_is_that_of_the_file(tmp_path):
  Image.new('RGB', (50, 20)).save(tmp_path / 'x.png')
  assert folder.Folder(tmp_path)[0]['short_side'] == 20


def test_a_vanished_file_is_a_bad_image(write_folder, tmp_path):
  paths = write_folder(tmp_path, 2, classes=())
  source = pickle.loads(pickle.dumps(folder.Folder(tmp_path)))
  paths[1].unlink()
  with pytest.raises(
    transforms.BadImage, match='0001.png: there is no such file'
  ):
    source[1]


def test_the_fingerprint_follows_names_and_sizes(write_folder, tmp_path):
  paths = write_folder(tmp_path, 3)
  before = folder.Folder(tmp_path).fingerprint
  assert folder.Folder(tmp_path).fingerprint == before
  paths[0].write_bytes(paths[0].read_bytes() + b'!')
  assert folder.Folder(tmp_path).fingerprint != before


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda p: p / 'nowhere', 'nowhere.* is not a folder'),
    (lambda p: p, r'has no images: .*\.png'),
  ],
)
def test_missing_and_empty_folders_are_refused(tmp_path, make, message):
  with pytest.raises(ValueError, match=message):
    folder.Folder(make(tmp_path))


def test_images_beside_the_class_folders_are_refused(write_folder, tmp_path):
  write_folder(tmp_path, 2)
  write_folder(tmp_path, 1, classes=())
  with pytest.raises(ValueError, match=r'0000.png is in none of the 2 class'):
    folder.Folder(tmp_path)


def test_pixels_are_limited_by_a_field(tmp_path, write_folder):
  write_folder(tmp_path, 1, classes=())
  with pytest.raises(transforms.BadImage, match='9x8 pixels are more than'):
    folder.Folder(tmp_path, max_pixels=71)[0]
  assert folder.Folder(tmp_path, max_pixels=72)[0]['image'].shape == (8, 9, 3)


def test_white_of_deep_images_is_a_field_and_part_of_the_fingerprint(tmp_path):
  samples = np.full((8, 8), 4095, np.uint16)
  Image.fromarray(samples).save(tmp_path / 'a.png')
  plain = folder.Folder(tmp_path)
  scaled = folder.Folder(tmp_path, max_value=4095)
  assert plain[0]['image'].max() == 16 and scaled[0]['image'].min() == 255
  assert plain.fingerprint != scaled.fingerprint
  assert [note.kind for note in plain[0]['notes']] == ['dark']
  assert 'notes' not in scaled[0]


@pytest.mark.parametrize(
  'limits', [{'max_pixels': 0}, {'max_value': 0}, {'max_value': float('nan')}]
)
def test_limits_that_cannot_be_meant_are_refused(tmp_path, limits):
  with pytest.raises(ValueError, match=next(iter(limits))):
    folder.Folder(tmp_path, **limits)


def test_a_rotation_that_is_not_applied_is_another_fingerprint(tmp_path):
  """And one that is has that of versions which knew no other."""
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / '0.png').write_bytes(b'123')
  as_before = 'folder:3e49051ba8f34588'
  assert folder.Folder(tmp_path).fingerprint == as_before
  assert folder.Folder(tmp_path, exif_rotation=True).fingerprint == as_before
  ignored = folder.Folder(tmp_path, exif_rotation=False)
  assert ignored.fingerprint != as_before


def test_a_folder_turns_its_photographs_only_if_it_is_asked_to(tmp_path):
  exif = Image.Exif()
  exif[274] = 6
  Image.new('RGB', (6, 4)).save(tmp_path / '0.png', exif=exif)
  for turned, shape in ((True, (6, 4, 3)), (False, (4, 6, 3))):
    element = folder.Folder(tmp_path, exif_rotation=turned)[0]
    assert element['image'].shape == shape
    kinds = [note.kind for note in element['notes']]
    assert kinds == ['rotated' if turned else 'unrotated']
