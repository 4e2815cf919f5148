import shlex

import pytest

from cdm.data import array_record, prepare, synthetic


def test_the_command_of_an_error_holds_for_a_path_with_spaces(tmp_path):
  path = tmp_path / "my photos' set"
  with pytest.raises(ValueError, match='Make one with: ') as error:
    array_record.ArrayRecords(path)
  words = shlex.split(str(error.value).partition('Make one with: ')[2])
  assert words[-1] == f'--out={path}'


def test_prepared_sets_must_be_there_and_whole(tmp_path):
  with pytest.raises(
    ValueError, match='not a prepared data set: it has no index'
  ):
    array_record.ArrayRecords(tmp_path)
  pytest.importorskip('array_record')
  images = synthetic.Synthetic(image_size=8, num_images=10)
  prepare.prepare(images, size=8, out=tmp_path, records_per_shard=4)
  (tmp_path / 'images-00001-of-00003.array_record').unlink()
  with pytest.raises(ValueError, match='images-00001.* is missing'):
    array_record.ArrayRecords(tmp_path)
