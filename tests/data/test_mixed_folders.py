"""Subfolders that are splits or copies are refused, and classes are not."""

import pytest

from cdm.data import folder, mixed_folders


def files(*folders, names=('0.png', '1.png', '2.png')):
  return sorted(f'{name}/{file}' for name in folders for file in names)


CLASSES = ('n01440764', 'n01443537')
KAGGLE = [
  *files(*(f'train/{name}' for name in CLASSES)),
  *files('val', 'test'),
]


@pytest.mark.parametrize('classes', [True, False])
@pytest.mark.parametrize(
  ('found', 'message'),
  [
    (
      KAGGLE,
      r'/x holds splits .* train \(6\), val \(3\), test \(3\): .*'
      'Give /x/train for training and /x/val for evaluation. '
      'val has no class .* LOC_val_solution.csv',
    ),
    (
      [f'ILSVRC/Data/CLS-LOC/{file}' for file in KAGGLE],
      'Give /x/ILSVRC/Data/CLS-LOC/train for training and /x/ILSVRC/Data/CLS-',
    ),
    (files('Train', 'Validation'), 'Give /x/Train for .*/Validation for eval'),
    (files('train2017', 'val2017', 'x'), 'Give /x/train2017 .* /x/val2017 for'),
    (files('a_train_HR', 'a_valid_HR'), 'Give /x/a_train_HR .* /x/a_valid_HR'),
    (files('trainA', 'trainB', 'testA'), 'Give /x/trainA for .* /x/testA for'),
    (files('test', 'val'), 'Give one of them, for example /x/val'),
    (
      files('images1024x1024/00000', 'thumbnails128x128/00000'),
      r'/x holds several copies .* Give one of them, for example '
      '/x/images1024x1024',
    ),
    (files('in-the-wild-images', 'other'), 'for example /x/in-the-wild-images'),
    (
      ['C/CelebA-HQ-img/0.jpg', 'C/CelebAMask-HQ-mask-anno/0/00000_hair.png'],
      'Give one of them, for example /x/C/CelebA-HQ-img',
    ),
    (files('masks', 'images'), 'Give one of them, for example /x/images'),
    (files('128x128', 'faces_64x64', 'c'), 'several copies'),
    (files('large', 'small_64x64'), 'several copies'),
    (files('lowres', 'original', 'upscaled'), 'several copies'),
  ],
)
def test_splits_and_copies_side_by_side_are_refused(found, message, classes):
  with pytest.raises(ValueError, match=message):
    mixed_folders.check('/x', found, classes=classes)


@pytest.mark.parametrize('classes', [True, False])
@pytest.mark.parametrize(
  'found',
  [
    ['0.png', '1.png'],
    files(*CLASSES),
    files('train', 'bus', 'car', 'test tube', 'image', 'dev board'),
    files('test tube', 'test strip'),
    files('bullet train', 'strain', 'contest'),
    files('2x4', '4x4', '12x12'),  # bricks
    files('test', 'val', 'bus'),
    files('mask', 'scarf'),
    files('labels', 'masks'),
    [*files('128x128', names=('a.png',)), *files('64x64', names=('b.png',))],
    files('00000', '01000'),
    ['train/0.png', 'x.png', 'val/0.png'],  # whose pictures lie beside
    files('original', 'upscaled'),
    files('train'),
  ],
)
def test_classes_are_not_refused(found, classes):
  mixed_folders.check('/x', sorted(found), classes=classes)


def test_the_folder_around_one_split_would_be_one_class():
  found = files(*(f'a/train/{name}' for name in CLASSES))
  with pytest.raises(ValueError, match='not a class. Give /x/a/train.'):
    mixed_folders.check('/x', found, classes=True)
  mixed_folders.check('/x', found, classes=False)
  mixed_folders.check('/x', files('dog/2019', 'dog/2020'), classes=True)


def test_a_folder_is_checked_unless_its_classes_are_named(
  write_folder, tmp_path
):
  write_folder(tmp_path, 4, classes=('train', 'val'))
  labels = tmp_path / 'labels.txt'
  labels.write_text('0000 a\n', encoding='utf-8')
  for arguments in ({}, {'class_names': ()}, {'labels': labels}):
    with pytest.raises(ValueError, match='splits of a data set'):
      folder.Folder(tmp_path, **arguments)
  named = folder.Folder(tmp_path, class_names=('val', 'train'))
  assert sorted(named.labels.tolist()) == [0, 0, 1, 1]
