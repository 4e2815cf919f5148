"""A URL is refused wherever a path is meant, by a sentence with the remedy."""

import pytest
from support import smoke_runs

from cdm.config import datasets
from cdm.distributed import remote_paths

CONFIG = smoke_runs.CONFIGS / 'smoke.py'


@pytest.mark.parametrize(
  ('url', 'remedy'),
  [
    ('gs://bucket/a', r'Mount the bucket \(gs:// with gcsfuse\)'),
    ('gs:/bucket/a', 'with gcsfuse'),  # what Path makes of it
    ('configs/X.py@gs://bucket/a', 'with gcsfuse'),
    ('s3://bucket/a', r'Mount the bucket \(s3://\)'),
    ('https://host/a.npz', 'Download it'),
    ('file:///a', 'without file://'),
  ],
)
def test_a_url_is_told_from_a_path(url, remedy):
  with pytest.raises(ValueError, match=rf'--out=\S+ is a URL .*{remedy}'):
    remote_paths.refuse(url, '--out')


@pytest.mark.parametrize(
  'path', ['/data/gs/a', 'runs/a@best', 'C:/a', 'logs://a', 'a:b', '', 'egs://']
)
def test_a_path_is_none(path):
  remote_paths.refuse(path, '--out')


@pytest.mark.parametrize(
  ('words', 'named'),
  [
    (
      ['prepare', '--source=gs://b/x', '--size=8', '--filter=area', '--out=o'],
      '--source=gs://b/x',
    ),
    (
      ['evaluate', '--samples=s', '--reference=gs://b/images'],
      '--reference=gs://b/images',
    ),
    (['upscale', '--workdir=w', '--out=o', 'gs://b/a.png'], 'gs://b/a.png'),
    (['cas', f'--config={CONFIG}', '--workdir=gs://b/w'], '--workdir=gs:'),
    (
      ['train', f'--config={CONFIG}', '--workdir=w']
      + ['--config.name=gs://b/w'],
      '--config.name=gs://b/w',
    ),
  ],
)
def test_every_command_refuses_one_and_leaves_nothing(
  words, named, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  assert smoke_runs.cdm(*words) == 2
  last = capsys.readouterr().err.splitlines()[-1]
  assert f'cdm: error: {named}' in last
  assert 'gcsfuse' in last
  assert not list(tmp_path.iterdir())


def test_one_in_the_file_of_a_config_is_refused_too():
  section = {'kind': 'folder', 'path': 'gs://b/t', 'class_names': ()}
  with pytest.raises(ValueError, match=r'config\.train_data\.path=gs://b/t is'):
    datasets.open_source(section)
