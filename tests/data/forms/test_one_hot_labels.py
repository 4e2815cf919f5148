import numpy as np
import pytest

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import one_hot_labels


@pytest.fixture
def write(tmp_path):
  def save(array):
    with open(tmp_path / 'a-rxx.labels', 'wb') as file:
      np.save(file, array)
    return str(tmp_path / 'a-rxx.labels')

  return save


def test_the_class_is_the_place_of_the_one(write):
  found = one_hot_labels.read(write(np.eye(5, dtype=np.float32)[[3, 0, 4]]), 3)
  assert found.values.tolist() == [3, 0, 4]
  assert found.class_names == ('0', '1', '2', '3', '4') and not found.named
  many = np.arange(10_000) % 3
  found = one_hot_labels.read(write(np.eye(3)[many]), 10_000)
  np.testing.assert_array_equal(found.values, many)


def test_rows_without_numbers_are_no_labels(write):
  found = one_hot_labels.read(write(np.zeros((3, 0), np.float32)), 3)
  assert found.class_names == () and found.values.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
  'rows', [[[1, 1]], [[0, 0]], [[0.5, 0.5]], [[1, -1]], [[float('nan'), 1]]]
)
def test_rows_of_several_attributes_are_no_classes(write, rows):
  with pytest.raises(
    ValueError, match='Row 0 of .* is not a class: .*class_names='
  ):
    one_hot_labels.read(write(np.array(rows)), 1)


def test_labels_of_another_number_of_images_are_refused(write):
  with pytest.raises(DamagedFile, match=r'shape \(2, 2\), and a row for each'):
    one_hot_labels.read(write(np.eye(2)), 3)
  with pytest.raises(DamagedFile, match=r'shape \(2,\), and a row for each'):
    one_hot_labels.read(write(np.arange(2)), 2)


@pytest.mark.parametrize('damage', ['cut', 'html', 'empty', 'pickle', 'text'])
def test_a_file_of_another_kind_is_refused(write, damage):
  path = write(np.eye(9))
  with open(path, 'rb') as file:
    data = file.read()
  if damage == 'pickle':
    write(np.array([[print]], object))
  elif damage == 'text':
    write(np.array([['a']]))
  else:
    with open(path, 'wb') as file:
      file.write({'cut': data[:300], 'html': b'<html>', 'empty': b''}[damage])
  with pytest.raises(DamagedFile, match='cannot be read as an .npy of numbers'):
    one_hot_labels.read(path, 9)
