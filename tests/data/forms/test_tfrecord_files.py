import pytest

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import tfrecord_files


@pytest.fixture
def folder(tmp_path):
  def make(*names):
    for name in names:
      (tmp_path / name).write_bytes(b'')
    return str(tmp_path)

  return make


def choose(path, split=None, resolution=None):
  found = tfrecord_files.choose(path, split, resolution)
  return [file.rpartition('/')[2] for file in found]


@pytest.mark.parametrize(
  'name, expected',
  [
    ('ffhq-r10.tfrecords', True),
    ('a.tfrecord', True),
    ('train-00000-of-01024', True),
    ('mnist-train.tfrecord-00000-of-00001', True),
    ('train-00000-of-00294.parquet', False),
    ('ffhq-rxx.labels', False),
    ('tfrecords', False),
  ],
)
def test_files_are_told_by_their_names(name, expected):
  assert tfrecord_files.is_tfrecord(name) == expected


def test_the_largest_resolution_is_taken_unless_one_is_chosen(folder):
  path = folder('ffhq-r02.tfrecords', 'ffhq-r10.tfrecords', 'ffhq-rxx.labels')
  assert choose(path) == choose(path, 'ffhq') == ['ffhq-r10.tfrecords']
  assert choose(path, resolution=4) == ['ffhq-r02.tfrecords']
  with pytest.raises(ValueError, match='no images of 8 pixels; it has 4, 1024'):
    choose(path, resolution=8)


def test_one_of_several_data_sets_must_be_chosen(folder):
  path = folder('a-r03.tfrecords', 'b-r03.tfrecords')
  assert choose(path, 'b') == ['b-r03.tfrecords']
  with pytest.raises(ValueError, match=r"the data sets \('a', 'b'\). Choose"):
    choose(path)
  with pytest.raises(ValueError, match=r"no 'c'; it has the data sets"):
    choose(path, 'c')


def test_numbered_files_are_those_of_a_split(folder):
  path = folder(
    'train-00001-of-00002', 'train-00000-of-00002', 'val-00000-of-00002'
  )
  assert choose(path, 'train') == [
    'train-00000-of-00002',
    'train-00001-of-00002',
  ]
  with pytest.raises(DamagedFile, match='has 1 of the 2 files'):
    choose(path, 'val')
  with pytest.raises(ValueError, match='resolution=8 chooses among files like'):
    choose(path, 'train', resolution=8)


def test_what_is_missing_is_said(folder, tmp_path):
  with pytest.raises(
    ValueError, match='none does not exist; give a file of TF'
  ):
    choose(f'{folder()}/none')
  with pytest.raises(ValueError, match='whose name ends in .tfrecords or'):
    choose(folder('a.png'))
  with pytest.raises(ValueError, match='resolution=8 chooses .* is a file'):
    choose(f'{folder("a.tfrecords")}/a.tfrecords', resolution=8)


def test_labels_belong_to_the_files_of_their_name(folder):
  path = folder('a-r03.tfrecords', 'a-rxx.labels', 'b-r03.tfrecords')
  found = tfrecord_files.labels_of(f'{path}/a-r03.tfrecords')
  assert found == f'{path}/a-rxx.labels'
  assert tfrecord_files.labels_of(f'{path}/b-r03.tfrecords') is None
  assert tfrecord_files.labels_of(f'{path}/c.tfrecords') is None
