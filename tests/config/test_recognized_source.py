"""A path is read as what it holds, and a wrong kind names the right one."""

import json
import shlex
import zipfile

import numpy as np
import pytest
from PIL import Image

from cdm.cli.commands import prepare as prepare_command
from cdm.config import datasets, recognized_source
from cdm.data import prepare, synthetic


class Tables:
  """Stands for a form of its own."""

  def __init__(self, path, split='train'):
    self.path, self.split = path, split

  @staticmethod
  def holds(path):
    return path.endswith('.table')


@pytest.fixture
def sources(monkeypatch):
  monkeypatch.setitem(datasets.SOURCES, 'tables', Tables)
  return datasets.SOURCES


def test_every_path_is_of_the_kind_that_it_holds(tmp_path, sources):
  pytest.importorskip('array_record')
  pictures = tmp_path / 'pictures'
  pictures.mkdir()
  Image.new('RGB', (4, 4)).save(pictures / '0.png')
  prepare.prepare(
    synthetic.Synthetic(image_size=8), size=8, out=tmp_path / 'shards'
  )
  np.savez(tmp_path / 'a.npz', arr_0=np.zeros((2, 4, 4, 3), np.uint8))
  (tmp_path / 'a.table').touch()
  for name, kind in {
    'pictures': 'folder',
    'shards': 'array_records',
    'a.npz': 'archive',
    'a.table': 'tables',
  }.items():
    path = str(tmp_path / name)
    section = recognized_source.section(path, sources)
    assert section == {'kind': kind, 'path': path}
  (tmp_path / 'a.mp4').touch()
  for name in ('a.mp4', 'none'):
    with pytest.raises(ValueError, match='is not a folder of images: it'):
      recognized_source.section(str(tmp_path / name), sources)


def test_a_config_that_calls_it_another_kind_is_told_the_right_one(
  tmp_path, sources
):
  path = tmp_path / 'a.table'
  path.touch()
  with pytest.raises(
    ValueError, match=r"not of the kind 'folder', but of the kind 'tables' .*"
  ) as told:
    datasets.open_source({'kind': 'folder', 'path': str(path)})
  assert str(told.value).endswith('Set --config.train_data.kind=tables.')
  assert str(told.value).startswith('config.train_data.path: ')


def test_an_archive_that_is_called_a_folder_is_told_its_kind(tmp_path):
  path = tmp_path / 'set.zip'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('0.png', b'')
  with pytest.raises(ValueError, match=r'Set --config\.eval_data\.kind=zip\.'):
    datasets.open_source({'kind': 'folder', 'path': str(path)}, 'eval_data')


def test_a_folder_of_tensorflow_datasets_names_what_opens_it(tmp_path, sources):
  for config in (None, '64x64'):
    folder = tmp_path / 'my data' / 'set' / (config or '') / '1.0.0'
    folder.mkdir(parents=True)
    info = {'name': 'set', 'version': '1.0.0', 'splits': [{'name': 'test'}]}
    if config:
      info['configName'] = config
    text = json.dumps(info)
    (folder / 'dataset_info.json').write_text(text, encoding='utf-8')
    (folder / 'features.json').write_text('{}', encoding='utf-8')
    with pytest.raises(ValueError, match=r'splits \(test\)') as told:
      recognized_source.section(str(folder), sources)
    command = str(told.value).partition('Give ')[2].partition(', or')[0]
    full = f'set/{config}:1.0.0' if config else 'set:1.0.0'
    assert shlex.split(command) == [
      f'--source=tfds:{full}:train',
      f'--data_dir={tmp_path / "my data"}',
    ]


def test_keys_of_a_form_are_set_by_the_source_option(sources):
  section = {'kind': 'tables', 'path': 'x'}
  given = prepare_command.with_keys(section, [('split', 'test')])
  assert given == section | {'split': 'test'}
  with pytest.raises(ValueError, match=r"--source has 'spilt'.*--source.split"):
    prepare_command.with_keys(section, [('spilt', 'test')])
  kind = prepare_command.source_section('x', None, kind='tables')
  assert kind == section
  with pytest.raises(ValueError, match='--source.kind=zip2 is not known; know'):
    prepare_command.source_section('x', None, kind='zip2')


@pytest.mark.parametrize(
  ('text', 'size'), [('original', None), ('64', 64), ('0', 0), ('-1', -1)]
)
def test_a_size_is_a_number_or_the_original_one(text, size):
  assert prepare_command.size_argument(text) == size


@pytest.mark.parametrize('text', ['', '64px', '1e3', '6.4'])
def test_a_size_that_is_neither_is_refused(text):
  with pytest.raises(ValueError, match='--size=original'):
    prepare_command.size_argument(text)
