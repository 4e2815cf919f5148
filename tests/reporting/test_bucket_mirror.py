"""The records of a run are in its bucket when they must be, on any machine."""

import time

import pytest
from support import gcs_server  # skips where the clients are missing

from cdm.data.files import atomic_files
from cdm.distributed import bucket_folders, lock_owner
from cdm.reporting import bucket_mirror

retries = pytest.importorskip('google.api_core.retry')
retry = pytest.importorskip('google.cloud.storage.retry')

URL = 'gs://bucket/run'


@pytest.fixture(autouse=True)
def cloud(tmp_path, monkeypatch):
  # Uploads happen when a test asks for them.
  monkeypatch.setattr(bucket_mirror, 'INTERVAL_S', 1000.0)
  monkeypatch.setattr(
    retry,
    'DEFAULT_RETRY',
    retries.Retry(
      predicate=retry._should_retry, initial=0.01, maximum=0.02, timeout=0.2
    ),
  )
  with gcs_server.used(tmp_path) as server:
    yield server


def on_machine(name, monkeypatch, tmp_path):
  """-> the mirror of the run on a machine of this name."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / name))
  bucket_folders._mirrors.clear()
  return bucket_folders.mirror(URL, written=True)


def test_another_machine_continues_the_same_records(
  cloud, monkeypatch, tmp_path
):
  folder = on_machine('first', monkeypatch, tmp_path)
  with bucket_mirror.mirrored(folder) as upload:
    (folder / 'grids').mkdir(parents=True)
    (folder / 'grids' / 'a.png').write_bytes(b'png')
    (folder / 'scalars.jsonl').write_text('1\n', encoding='utf-8')
    (folder / lock_owner.LOCK).write_text('of this machine', encoding='utf-8')
    (folder / atomic_files.partial_name('x')).write_text(
      'unfinished', encoding='utf-8'
    )
    upload.flush(1.0)
    assert cloud.names('bucket') == ['run/grids/a.png', 'run/scalars.jsonl']
    with open(folder / 'scalars.jsonl', 'a', encoding='utf-8') as file:
      file.write('2\n')
    requests = len(cloud.requests)
    upload.flush(1.0)
    assert len(cloud.requests) == requests + 1  # The grid is not sent again.
  cloud.put('bucket', 'run/checkpoints/4/state/manifest', b'large')
  cloud.put('bucket', 'run/tensorboard/events', b'large')
  cloud.put('bucket', 'run/../../escaped', b'no name of a file')

  folder = on_machine('second', monkeypatch, tmp_path)
  folder.mkdir(parents=True)
  (folder / 'stale.json').write_text('of an earlier run here', encoding='utf-8')
  with bucket_mirror.mirrored(folder):
    assert (folder / 'scalars.jsonl').read_text(encoding='utf-8') == '1\n2\n'
    assert (folder / 'grids' / 'a.png').read_bytes() == b'png'
    names = {path.name for path in folder.iterdir()}
    assert names == {'scalars.jsonl', 'grids'}
    (folder / 'grids' / 'a.png').unlink()
    (folder / 'scalars.jsonl').write_text('1\n', encoding='utf-8')
  assert cloud.read('bucket', 'run/scalars.jsonl') == b'1\n'
  assert 'run/grids/a.png' not in cloud.names('bucket')
  assert 'run/checkpoints/4/state/manifest' in cloud.names('bucket')


def test_processes_beside_the_first_download_settings_alone(
  cloud, monkeypatch, tmp_path
):
  for name in ('config.json', 'scalars.jsonl', 'grids/a.png', 'failures/b.txt'):
    cloud.put('bucket', f'run/{name}', b'{}')
  folder = on_machine('another', monkeypatch, tmp_path)
  folder.mkdir(parents=True)
  (folder / 'rollbacks.json').write_text('of an earlier run', encoding='utf-8')
  monkeypatch.setattr(bucket_mirror.collectives, 'is_first', lambda: False)
  before = len(cloud.requests)
  with bucket_mirror.mirrored(folder) as upload:
    assert upload is None
    names = [p.name for p in folder.rglob('*') if p.is_file()]
    assert names == ['config.json']
  # A listing, the object, and what the client asks before each.
  assert len(cloud.requests) - before <= 4


def test_a_folder_of_this_machine_is_left_alone(tmp_path):
  with bucket_mirror.mirrored(tmp_path / 'run') as upload:
    assert upload is None
  assert not (tmp_path / 'run').exists()


def test_changes_are_uploaded_in_the_background_event_files_later(
  cloud, monkeypatch, tmp_path
):
  monkeypatch.setattr(bucket_mirror, 'INTERVAL_S', 0.02)
  folder = on_machine('first', monkeypatch, tmp_path)
  with bucket_mirror.mirrored(folder):
    (folder / 'tensorboard').mkdir()
    (folder / 'tensorboard' / 'events').write_bytes(b'event')
    (folder / 'scalars.jsonl').write_text('1\n', encoding='utf-8')
    deadline = time.monotonic() + 20
    while 'run/scalars.jsonl' not in cloud.names('bucket'):
      assert time.monotonic() < deadline
      time.sleep(0.01)
    assert 'run/tensorboard/events' not in cloud.names('bucket')
  assert 'run/tensorboard/events' in cloud.names('bucket')


def test_a_bucket_that_is_away_is_said_and_ends_nothing(
  cloud, monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(bucket_mirror, 'END_S', 0.1)
  folder = on_machine('first', monkeypatch, tmp_path)
  with bucket_mirror.mirrored(folder) as upload:
    (folder / 'scalars.jsonl').write_text('1\n', encoding='utf-8')
    cloud.fail_every = 1
    for _ in range(2):
      upload.flush(0.0)
    said = capsys.readouterr().err
    assert said.count('the records are not uploaded now') == 1
    cloud.fail_every = 0
    upload.flush(1.0)
    assert 'are uploaded to gs://bucket/run again' in capsys.readouterr().err
    (folder / 'scalars.jsonl').write_text('1\n2\n', encoding='utf-8')
    cloud.fail_every = 1
  said = capsys.readouterr().err
  assert f'not all records of this run are in {URL}; they are in' in said


def test_a_reader_gets_the_records_of_a_run_and_of_the_stages_of_a_cascade(
  cloud,
):
  for name in (
    *('run/base/classes.json', 'run/base/checkpoints/2/config/metadata'),
    *('run/base/grids/a.png', 'run/samples/00000.png', 'run/top.json'),
  ):
    cloud.put('bucket', name, b'{}')
  folder = bucket_folders.mirror(URL, written=False)
  for _ in range(2):
    bucket_mirror.fill_for_reading(folder)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob('*.*')}
    assert files == {'base/classes.json', 'top.json'}


def test_a_file_is_downloaded_once_for_each_generation(cloud):
  cloud.put('bucket', 'stats/a.npz', b'first')
  path = bucket_mirror.local_file('gs://bucket/stats/a.npz')
  requests = len(cloud.requests)
  assert bucket_mirror.local_file('gs://bucket/stats/a.npz') == path
  assert len(cloud.requests) == requests + 1
  cloud.put('bucket', 'stats/a.npz', b'second')
  again = bucket_mirror.local_file('gs://bucket/stats/a.npz')
  with open(path, 'rb') as old, open(again, 'rb') as new:
    assert (old.read(), new.read()) == (b'first', b'second')
  assert path.endswith('a.npz')
  assert bucket_mirror.local_file('stats/a.npz') == 'stats/a.npz'
  with pytest.raises(ValueError, match='b.npz: there is no such object'):
    bucket_mirror.local_file('gs://bucket/stats/b.npz')
