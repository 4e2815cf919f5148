"""The commit that runs, from git, from an image or from an installation."""

import importlib.metadata
import json
import os
import shutil
import subprocess

import pytest

from cdm.distributed import source_commit
from cdm.reporting import session_log


@pytest.fixture
def asked(monkeypatch):
  """-> f(**environment) that asks anew."""
  monkeypatch.delenv(source_commit.VARIABLE, raising=False)
  source_commit.commit.cache_clear()
  yield source_commit.commit
  source_commit.commit.cache_clear()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """-> (folder, its commit) of a repository that git has just made."""
  if shutil.which('git') is None:
    pytest.skip('git is not installed')
  root = tmp_path / 'checkout'
  root.mkdir()
  (root / 'file').write_text('a', encoding='utf-8')
  own = ('-c', 'user.name=x', '-c', 'user.email=x@x')
  for words in (('init', '-q'), ('add', 'file'), ('commit', '-qm', 'one')):
    subprocess.run(['git', *own, *words], cwd=root, check=True)
  commit = subprocess.check_output(
    ['git', 'rev-parse', 'HEAD'], cwd=root, text=True, encoding='utf-8'
  )
  monkeypatch.setattr(source_commit, '_ROOT', root)
  return root, commit.strip()


def test_git_tells_the_commit_and_whether_files_differ(asked, checkout):
  root, commit = checkout
  assert asked() == commit
  assert len(commit) == 40
  asked.cache_clear()
  (root / 'file').write_text('b', encoding='utf-8')
  assert asked() == commit + '+'


@pytest.mark.skipif(
  not hasattr(os, 'getuid') or os.getuid() != 0, reason='not the superuser'
)
def test_a_checkout_of_another_user_tells_it_too(asked, checkout):
  """As in a container, where git refuses it by default."""
  root, commit = checkout
  for path in (root, root / '.git'):
    os.chown(path, 12345, 12345)
  assert asked() == commit


def test_the_variable_of_an_image_comes_first(asked, checkout, monkeypatch):
  monkeypatch.setenv('CDM_COMMIT', ' c0ffee\n')
  assert asked() == 'c0ffee'


def test_an_installation_tells_what_pip_has_noted(asked, tmp_path, monkeypatch):
  """PEP 610: direct_url.json of a package from a repository."""
  around = tmp_path / 'site-packages'
  around.mkdir()
  monkeypatch.setattr(source_commit, '_ROOT', around)

  class Distribution:
    def read_text(self, name):
      assert name == 'direct_url.json'
      vcs = {'vcs': 'git', 'commit_id': 'c0ffee'}
      return json.dumps({'url': 'https://x/y.git', 'vcs_info': vcs})

  monkeypatch.setattr(
    importlib.metadata, 'distribution', lambda name: Distribution()
  )
  assert asked() == 'c0ffee'
  asked.cache_clear()
  monkeypatch.setattr(Distribution, 'read_text', lambda *_: None)
  assert asked() is None


def test_every_session_records_its_commit(asked, tmp_path, monkeypatch):
  monkeypatch.setenv('CDM_COMMIT', 'c0ffee')
  with session_log.Session(tmp_path, 'work'):
    pass
  (line,) = (
    (tmp_path / session_log.FILE).read_text(encoding='utf-8').splitlines()
  )
  assert json.loads(line)['commit'] == 'c0ffee'
