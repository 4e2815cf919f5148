"""Objects are written whole, on a condition, and errors are one sentence."""

import importlib.util
import re

import pytest
from support import gcs_server  # skips where the clients are missing

from cdm.data import shell_commands
from cdm.distributed import bucket

retries = pytest.importorskip('google.api_core.retry')
retry = pytest.importorskip('google.cloud.storage.retry')


@pytest.fixture(autouse=True)
def cloud(tmp_path):
  with gcs_server.used(tmp_path) as server:
    yield server


@pytest.fixture
def hasty(monkeypatch):
  """The client asks again after a moment, and gives up soon."""
  once = retries.Retry(
    predicate=retry._should_retry, initial=0.01, maximum=0.02, timeout=0.5
  )
  monkeypatch.setattr(retry, 'DEFAULT_RETRY', once)


def test_a_write_may_be_bound_to_a_generation():
  folder = bucket.Folder('gs://bucket/runs')
  assert folder.read('a') is None
  first = folder.write('a', b'1', generation=0)
  with pytest.raises(bucket.Changed):
    folder.write('a', b'2', generation=0)
  second = folder.write('a', b'2', generation=first.generation)
  with pytest.raises(bucket.Changed):
    folder.write('a', b'3', generation=first.generation)
  folder.delete('a', generation=first.generation)  # It is another one now.
  found = folder.read('a')
  assert (found.data, found.generation) == (b'2', second.generation)
  folder.delete('a')
  folder.delete('a')  # It need not exist.
  assert folder.read('a') is None


def test_a_folder_is_listed_beyond_a_page_and_to_its_end_only():
  folder = bucket.Folder('gs://bucket/runs')
  count = gcs_server.PAGE + 3
  for n in range(count):
    gcs_server.server().put('bucket', f'runs/f/{n:03d}', b'x' * n)
  gcs_server.server().put('bucket', 'runs/top', b'')
  gcs_server.server().put('bucket', 'runs2/other', b'')
  assert [e.size for e in folder.entries('f/')] == list(range(count))
  assert len(folder.entries()) == count + 1
  files, folders = folder.level()
  assert [file.name for file in files] == ['top']
  assert folders == ['f/']
  assert folder.find('top').size == 0
  assert folder.find('to') is None


def test_a_file_is_downloaded_and_one_that_changed_is_not(tmp_path):
  folder = bucket.Folder('gs://bucket/runs')
  entry = folder.write('a', b'12345')
  folder.download(entry, tmp_path / 'a')
  assert (tmp_path / 'a').read_bytes() == b'12345'
  folder.write('a', b'other')
  with pytest.raises(OSError, match='runs/a was written while it was read'):
    folder.download(entry, tmp_path / 'a')


def test_a_service_that_is_busy_now_and_then_is_asked_again(cloud, hasty):
  cloud.fail_every = 2
  folder = bucket.Folder('gs://bucket/runs')
  for n in range(4):
    folder.write('a', b'%d' % n)
  cloud.fail_every = 0
  assert folder.read('a').data == b'3'


def test_a_service_that_stays_away_is_one_sentence(cloud, hasty):
  cloud.fail_every = 1
  with pytest.raises(OSError, match='gs://bucket/runs cannot be reached .*503'):
    bucket.Folder('gs://bucket/runs').write('a', b'')


def test_a_wrong_bucket_is_one_sentence():
  with pytest.raises(ValueError, match="there is no bucket 'another'. Create"):
    bucket.check('gs://another/runs')


def test_missing_credentials_are_one_sentence(monkeypatch, tmp_path):
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', '')
  monkeypatch.setenv('CLOUDSDK_CONFIG', str(tmp_path))
  monkeypatch.delenv('GOOGLE_APPLICATION_CREDENTIALS', raising=False)
  monkeypatch.setattr(bucket, '_client', bucket._client.__wrapped__)
  with pytest.raises(ValueError, match='no usable Google credentials .*gcloud'):
    bucket.check('gs://bucket/runs')


def test_a_missing_gcsfs_names_the_extra(monkeypatch):
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *args: None if name == 'gcsfs' else found(name, *args),
  )
  install = re.escape(shell_commands.install('cdm[gcs]'))
  with pytest.raises(ValueError, match=f'`{install}`, or mou'):
    bucket.check('gs://bucket/runs')
