"""One run at a time writes into a folder of a bucket."""

import json
import subprocess
import sys
import threading
import time

import pytest
from support import gcs_server

from cdm.distributed import (
  bucket_folders,
  bucket_lock,
  exit_codes,
  folder_lock,
  lock_owner,
)
from cdm.distributed.bucket_lock import BucketLock
from cdm.distributed.lock_contention import FolderInUse

URL = 'gs://bucket/run'
LOCK = f'run/{lock_owner.LOCK}'
ENDED_PID = subprocess.Popen([sys.executable, '-c', '']).pid


@pytest.fixture(autouse=True)
def cloud(tmp_path, monkeypatch):
  monkeypatch.setattr(bucket_lock, 'POLL_SECONDS', 0.02)
  monkeypatch.setattr(lock_owner, 'BEAT_SECONDS', 0.1)
  monkeypatch.setattr(lock_owner, 'WATCH_SECONDS', 0.3)
  monkeypatch.setattr(lock_owner, 'SILENT_SECONDS', 1.0)
  with gcs_server.used(tmp_path) as server:
    yield server
    bucket_lock.release_all()


def foreign(**fields):
  """-> the content of a lock of another run."""
  content = json.loads(lock_owner.content('cdm train', 'a' * 16))
  return json.dumps(content | fields).encode() + b'\n'


def eventually(condition):
  deadline = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_the_folder_is_held_until_the_outermost_context_ends(cloud, tmp_path):
  folder = bucket_folders.mirror(URL, written=True)
  with folder_lock.hold(folder, 'cdm train', flag='--workdir'):
    with folder_lock.hold(folder, 'cdm train'):
      assert LOCK in cloud.names('bucket')
    assert LOCK in cloud.names('bucket')
    assert (folder / lock_owner.LOCK).exists()
  assert not cloud.names('bucket')


def test_a_living_run_is_named_and_its_lock_stays(cloud):
  other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)
  try:
    ticks = lock_owner._state_and_ticks(other.pid)[1]
    held = cloud.put('bucket', LOCK, foreign(pid=other.pid, ticks=ticks))
    lock = BucketLock(URL, 'cdm train', flag='--workdir')
    message = rf'--workdir={URL} is in use by `cdm train` on .*{other.pid},'
    with pytest.raises(FolderInUse, match=message):
      lock.acquire()
    assert cloud.objects['bucket', LOCK] is held
  finally:
    other.communicate(b'')


@pytest.mark.parametrize('content', [foreign(pid=ENDED_PID, ticks=1), b'{'])
def test_the_lock_of_a_dead_run_is_taken_over(cloud, content, capsys):
  cloud.put('bucket', LOCK, content)
  lock = BucketLock(URL, 'cdm train')
  lock.acquire()
  assert 'was held by' in capsys.readouterr().err
  assert cloud.read('bucket', LOCK).startswith(lock._content)
  lock.release()
  assert not cloud.names('bucket')


def test_a_run_elsewhere_that_is_silent_is_taken_over_and_no_other(cloud):
  cloud.put('bucket', LOCK, foreign(host='node7'))
  start = time.monotonic()
  lock = BucketLock(URL, 'cdm train')
  lock.acquire()
  assert time.monotonic() - start > lock_owner.WATCH_SECONDS
  lock.release()
  # The same one, but with signs of life.
  cloud.put('bucket', LOCK, foreign(host='node7'))
  ended = threading.Event()

  def beat():
    while not ended.wait(0.1):
      cloud.put('bucket', LOCK, foreign(host='node7'))

  thread = threading.Thread(target=beat)
  thread.start()
  try:
    with pytest.raises(FolderInUse, match='on node7'):
      BucketLock(URL, 'cdm train').acquire()
  finally:
    ended.set()
    thread.join()


def test_a_run_shows_signs_of_life_and_that_it_ends(cloud):
  asked = []
  lock = BucketLock(URL, 'x', asked_to_end=lambda: asked[0] if asked else None)
  lock.acquire()
  generation = cloud.objects['bucket', LOCK].generation
  eventually(lambda: cloud.objects['bucket', LOCK].generation != generation)
  asked.append(exit_codes.PREEMPTED)
  ending = lock_owner.ENDING_LINE
  eventually(lambda: cloud.read('bucket', LOCK).endswith(ending))
  lock.release()


def test_of_many_starts_at_once_one_gets_the_folder(cloud):
  """Each looks like another machine's run, as they all are of one process."""
  cloud.put('bucket', LOCK, foreign(pid=ENDED_PID, ticks=1))
  results = []

  def start(n):
    lock = BucketLock(URL, 'cdm train')
    lock._content = foreign(host=f'node{n}', token=lock._token)
    # The registry of a process would let every one of them in.
    lock._url = f'{URL}#{n}'
    try:
      lock.acquire()
      results.append(n)
    except FolderInUse:
      pass

  threads = [threading.Thread(target=start, args=(n,)) for n in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(results) == 1


def test_a_run_that_lost_its_folder_leaves(cloud, monkeypatch):
  lock, left = BucketLock(URL, 'cdm train'), []

  def leave(claim):
    left.append(claim)
    raise OSError  # The process would have ended.

  monkeypatch.setattr(lock._contention, 'leave', leave)
  lock.acquire()
  other = cloud.put('bucket', LOCK, foreign(host='node7'))
  eventually(lambda: left)
  assert left[0].owner.host == 'node7'
  lock.release()
  assert cloud.objects['bucket', LOCK] is other
