import pytest

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import shard_files


@pytest.fixture
def folder(tmp_path):
  """Makes a folder of empty files of these names."""

  def make(*names):
    for name in names:
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_bytes(b'')
    files = shard_files.list_files(tmp_path, lambda n: n.endswith('.x'))
    return tmp_path, files

  return make


def choose(found, split=None, **options):
  root, files = found
  chosen = shard_files.choose(root, files, split, **options)
  return [str(root / file)[len(str(root)) + 1 :] for file in chosen]


@pytest.mark.parametrize(
  'name, split',
  [
    ('train-00000-of-00294.parquet', 'train'),
    ('data/train-00000-of-00294-1e4e2d8f0d4c5a6b.parquet', 'train'),
    ('default/train/0000.parquet', 'train'),
    ('faces/train-00000-of-00001.parquet', 'faces/train'),
    ('validation.parquet', 'validation'),
    ('train-00000-of-01024', 'train'),
    ('0000.parquet', ''),
    ('ffhq-r10.tfrecords', 'ffhq-r10'),
  ],
)
def test_the_words_before_the_number_are_the_split(name, split):
  assert shard_files.split_of(f'/set/{name}', '/set') == split


def test_files_of_one_split_are_read_in_order(folder):
  found = folder('data/train-00001-of-00002.x', 'data/train-00000-of-00002.x')
  assert choose(found) == choose(found, 'train')
  assert choose(found)[0] == 'data/train-00000-of-00002.x'


def test_one_of_several_splits_must_be_chosen(folder):
  found = folder('train-00000-of-00001.x', 'test-00000-of-00001.x', 'x.txt')
  assert choose(found, 'test') == ['test-00000-of-00001.x']
  with pytest.raises(ValueError, match=r"splits \('test', 'train'\). Choose"):
    choose(found)
  with pytest.raises(ValueError, match=r"no split 'val'; it has \('test', "):
    choose(found, 'val')


def test_configurations_with_equal_splits_are_told_apart(folder):
  found = folder('a/train-0000.x', 'b/train-0000.x', 'b/test-0000.x')
  assert choose(found, 'a/train') == ['a/train-0000.x']
  assert choose(found, 'test') == ['b/test-0000.x']
  with pytest.raises(ValueError, match=r"several splits 'train'; it has"):
    choose(found, 'train')


def test_a_missing_file_of_a_split_is_noticed(folder):
  found = folder('train-00000-of-00003.x', 'train-00002-of-00003.x')
  with pytest.raises(DamagedFile, match='has 2 of the 3 .* is number 1. Down'):
    choose(found)
  assert len(choose(found, is_whole=False)) == 2


def test_hidden_and_deep_folders_are_left_out_and_links_count_once(
  folder, tmp_path
):
  (tmp_path / 'again').symlink_to(tmp_path)
  (tmp_path / 'z').symlink_to(tmp_path / 'b')
  root, files = folder('.cache/a.x', 'b/c/d/e.x', 'b/c/d/e/f.x', '.g.x')
  assert [f[len(str(root)) :] for f in files] == ['/b/c/d/e.x']
  assert shard_files.has_any(root, lambda n: n == 'e.x')
  assert not shard_files.has_any(root, lambda n: n == 'f.x')
  assert not shard_files.has_any(root / 'none', lambda n: True)


def test_a_table_beside_pictures_makes_no_folder_of_shards(
  folder, tmp_path, monkeypatch
):
  def holds():
    return shard_files.has_any(tmp_path, lambda n: n.endswith('.x'))

  folder('cat/1.png', 'cat/2.png', 'cat/about.x', 'logo.png')
  assert not holds()
  folder('data/train-0000.x')
  assert holds()
  monkeypatch.setattr(shard_files, '_MOST_LOOKED_AT', 2)
  assert not holds()
