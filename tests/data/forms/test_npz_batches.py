"""Batches of downsampled ImageNet as image-net.org distributes them."""

import logging
import pickle

import numpy as np
import pytest
from support import small_archives as small

from cdm.config import datasets
from cdm.data import prepare
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms.npz_batches import NpzBatches

SORTED = ('n02100735', 'n02119789')


@pytest.fixture
def batches(tmp_path):
  small.write_npz_batches(tmp_path, [[1, 2], [2], [1]])
  write_map(tmp_path)
  return tmp_path


def write_map(folder):
  path = folder / 'map_clsloc.txt'
  path.write_text(small.MAP_CLSLOC, encoding='utf-8')


def test_images_and_labels_are_those_of_the_batches(batches):
  source = pickle.loads(pickle.dumps(NpzBatches(batches)))
  assert (len(source), source.image_size) == (4, 8)
  for i in (3, 0, 2, 1, -1):
    element = source[i]
    np.testing.assert_array_equal(element['image'], small.square(i % 4))
    assert element['short_side'] == 8
  # 1 is n02119789, the second class in the order of the ids.
  assert source.class_names == SORTED and source.named
  assert source.labels.tolist() == [1, 0, 0, 1]
  with pytest.raises(IndexError):
    source[4]
  section = {'kind': 'npz_batches', 'path': str(batches)}
  assert datasets.open_source(section).fingerprint == source.fingerprint
  assert NpzBatches.holds(str(batches))
  assert NpzBatches.holds(str(batches / 'train_data_batch_1.npz'))
  (batches / 'sub' / 'val_data').mkdir(parents=True)
  assert not NpzBatches.holds(str(batches / 'sub'))
  assert not NpzBatches.holds(str(batches / 'val_data.npz'))


def test_ten_batches_are_in_the_order_of_their_numbers(tmp_path):
  small.write_npz_batches(tmp_path, [[1]] * 11)
  source = NpzBatches(tmp_path)
  for i in range(11):
    np.testing.assert_array_equal(source[i]['image'], small.square(i))


def test_classes_without_their_table_fit_those_of_no_other_data(
  batches, tmp_path, caplog
):
  table = (batches / 'map_clsloc.txt').rename(tmp_path / 'table')
  with caplog.at_level(logging.WARNING):
    source = NpzBatches(batches)
  assert source.class_names == ('clsloc 1', 'clsloc 2')
  assert source.labels.tolist() == [0, 1, 1, 0]
  assert 'has no map_clsloc.txt beside it' in caplog.text
  with pytest.raises(ValueError, match="2 classes .* first 'clsloc 1'"):
    NpzBatches(batches, class_names=SORTED)
  assert NpzBatches(batches, class_names=()).num_classes == 0
  found = NpzBatches(
    batches, class_names=(*SORTED, 'n09'), class_map=str(table)
  )
  assert found.labels.tolist() == [1, 0, 0, 1] and found.num_classes == 3


def test_one_batch_and_the_validation_set_are_read(batches):
  one = NpzBatches(batches / 'train_data_batch_2.npz')
  np.testing.assert_array_equal(one[0]['image'], small.square(0 + 2))
  small.write_npz_batches(batches, [[2, 2, 1]], name='val_data.npz')
  assert len(NpzBatches(batches / 'val_data.npz')) == 3
  with pytest.raises(ValueError, match="Set split to 'train' or to 'val'"):
    NpzBatches(batches)
  assert len(NpzBatches(batches, split='val')) == 3
  assert len(NpzBatches(batches, split='train')) == 4
  with pytest.raises(ValueError, match="split is 'test'"):
    NpzBatches(batches, split='test')


def test_a_part_of_the_set_is_said(batches, caplog):
  with caplog.at_level(logging.WARNING):
    NpzBatches(batches)
  assert 'holds 4 images; the set has 1281167 in' in caplog.text


def remove_second(folder):
  (folder / 'train_data_batch_2.npz').unlink()


def only_pickles(folder):
  for path in list(folder.glob('*.npz')):
    path.rename(path.with_suffix(''))


def remove_all(folder):
  for path in folder.glob('*.npz'):
    path.unlink()


def rewrite(**changes):
  def change(folder):
    path = folder / 'train_data_batch_1.npz'
    with np.load(path) as file:
      arrays = dict(file) | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})

  return change


def cut(length):
  def change(folder):
    path = folder / 'train_data_batch_1.npz'
    path.write_bytes(path.read_bytes()[:length])

  return change


def replace(data):
  def change(folder):
    (folder / 'train_data_batch_1.npz').write_bytes(data)

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (remove_second, 'has the batches 1, 3 but not 2'),
    (only_pickles, 'pickled batch train_data_batch_1. .*Imagenet64_train'),
    (remove_all, 'has no batches of downsampled ImageNet, such as train_data'),
    (cut(500), 'cannot be read as an .npz archive'),
    (cut(-9), 'cannot be read as an .npz archive'),
    (replace(b'version https://git-lfs'), 'It is a pointer of .*git lfs pull'),
    (replace(b''), 'is no .npz. The file is empty'),
    (rewrite(labels=None), "has the arrays .*'data', 'mean'.* were expected"),
    (rewrite(labels=np.array([1])), 'int64 .1,.; a number for each of the 2'),
    (rewrite(labels=np.array([0, 1])), 'from 0 to 2; numbers from 1 to 2'),
    (rewrite(labels=np.array([1, 3])), 'from 1 to 3; numbers from 1 to 2'),
    (rewrite(labels=np.array([None, 1])), 'labels.* is object|Python objects'),
    (rewrite(data=np.zeros((2, 100), np.uint8)), r'uint8 \(2, 100\); uint8'),
    (rewrite(data=np.zeros((2, 8, 24), np.uint8)), r'uint8 \(2, 8, 24\); uint'),
    (rewrite(data=np.zeros((2, 192))), r'is float64 \(2, 192\); uint8'),
    (rewrite(data=np.zeros((2, 12), np.uint8)), '2 pixels in .* 8 pixels in'),
  ],
)  # fmt: skip
def test_batches_that_would_be_misread_are_refused(batches, change, message):
  change(batches)
  with pytest.raises(ValueError, match=message):
    NpzBatches(batches)


def test_a_batch_that_becomes_shorter_is_named(batches):
  source = NpzBatches(batches)
  cut(300)(batches)
  with pytest.raises(DamagedFile, match='train_data_batch_1.npz ends at byte'):
    source[0]


def test_compressed_batches_are_prepared_in_one_pass(tmp_path):
  folder = tmp_path / 'set'
  folder.mkdir()
  write_map(folder)
  small.write_npz_batches(folder, [[1, 2], [2], [1] * 50], compressed=True)
  with pytest.raises(ValueError, match='cdm prepare --source=.*set --size=8'):
    NpzBatches(folder)
  source = pickle.loads(pickle.dumps(NpzBatches(folder, in_order=True)))
  prepare.prepare(source, size=8, out=tmp_path / 'out', crop='none')
  section = {'kind': 'array_records', 'path': str(tmp_path / 'out')}
  prepared = datasets.open_source(section)
  for i in range(53):
    np.testing.assert_array_equal(prepared[i]['image'], small.square(i))
    assert prepared[i]['label'] == source.labels[i]
  assert prepared.class_names == SORTED
