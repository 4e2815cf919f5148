"""A folder says what it holds, or nothing is added to it."""

import json

import pytest

from cdm.data.files import damaged_file
from cdm.evaluation import image_source
from cdm.sampling import output_folder


@pytest.mark.parametrize('text', ['{"seed": ', '[]', '', '\xff'])
def test_a_damaged_manifest_is_a_data_error_and_stays(tmp_path, text):
  path = tmp_path / 'sampling.json'
  output_folder.claim(tmp_path, {'seed': 0}, name=path.name)
  output_folder.claim(tmp_path, {'seed': 0}, name=path.name)
  assert json.loads(path.read_text(encoding='utf-8')) == {'seed': 0}
  path.write_text(text, encoding='utf-8')
  with pytest.raises(
    damaged_file.DamagedFile, match='sampling.json is damaged'
  ):
    output_folder.claim(tmp_path, {'seed': 0}, name=path.name)
  with pytest.raises(damaged_file.DamagedFile, match='remove the file'):
    image_source.describe_samples(tmp_path)
  assert path.read_text(encoding='utf-8') == text
