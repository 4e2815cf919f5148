"""One run at a time holds a folder; what a killed run left is taken over."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from cdm.distributed import exit_codes, folder_lock, lock_owner
from cdm.distributed.folder_lock import FolderInUse, FolderLock
from cdm.evaluation import partial_results

ROOT = pathlib.Path(__file__).resolve().parents[2]
HAS_PROC = os.path.exists('/proc/self/stat')
needs_proc = pytest.mark.skipif(
  not HAS_PROC, reason='the start time of a process needs /proc'
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """What takes minutes between machines takes tenths of a second here."""
  monkeypatch.setattr(folder_lock, 'POLL_SECONDS', 0.02)
  monkeypatch.setattr(lock_owner, 'BEAT_SECONDS', 0.1)
  monkeypatch.setattr(lock_owner, 'WATCH_SECONDS', 0.3)
  monkeypatch.setattr(lock_owner, 'SILENT_SECONDS', 1.0)


ENDED = 'that of a process which has ended'


def lock(folder, **options):
  return FolderLock(folder, 'cdm test', flag='--out', **options)


def left_by(folder, *, age=0.0, **changes):
  """Writes the lock of a run; by default of a living one, this process."""
  content = json.loads(lock_owner.content('cdm train', 'ab' * 8))
  if changes.get('pid') is ENDED:
    changes['pid'] = ended_pid()
  path = folder / lock_owner.LOCK
  path.write_text(json.dumps(content | changes) + '\n', encoding='utf-8')
  os.utime(path, (time.time() - age,) * 2)
  return path


def ended_pid():
  """-> the id of a process that has just ended; an old one is given anew."""
  pid = subprocess.Popen([sys.executable, '-c', '']).pid
  os.waitpid(pid, 0)
  return pid


HOLDER = """
import sys, time
from cdm.distributed import folder_lock
with folder_lock.FolderLock(sys.argv[1], 'cdm train', flag='--workdir'):
  print('held', flush=True)
  sys.stdin.read()
"""


def holder(folder):
  process = subprocess.Popen(
    [sys.executable, '-c', HOLDER, folder],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    encoding='utf-8',
  )
  return process


def test_a_second_process_is_refused_and_told_who_the_first_is(tmp_path):
  folder = tmp_path / 'run'
  first = holder(folder)
  assert first.stdout.readline() == 'held\n'
  message = rf'in use by `cdm train` on .* \(process {first.pid}, since 20.*UTC'
  with pytest.raises(FolderInUse, match=message) as caught:
    lock(folder).acquire()
  assert exit_codes.classify(caught.value) is exit_codes.BAD_INPUT
  first.communicate('')
  assert not folder.exists()  # It was empty, and the first had made it.
  with lock(folder):
    assert (folder / lock_owner.LOCK).exists()


def test_of_two_that_start_at_once_one_goes_on(tmp_path):
  for _ in range(3):
    both = [holder(tmp_path), holder(tmp_path)]
    said = [process.stdout.readline() for process in both]
    assert sorted(said) == ['', 'held\n']
    for process in both:
      process.communicate('')
    assert sorted(process.returncode for process in both) == [0, 1]
  assert not list(tmp_path.iterdir())


def test_a_killed_run_is_replaced_at_once_on_its_machine(tmp_path, capsys):
  first = holder(tmp_path)
  first.stdout.readline()
  first.send_signal(signal.SIGKILL)
  if HAS_PROC:
    # Not waited for yet: a zombie has ended, too.
    while lock_owner._state_and_ticks(first.pid)[0] != 'Z':
      time.sleep(0.01)
  else:
    first.wait()
  began = time.monotonic()
  with lock(tmp_path):
    assert time.monotonic() - began < 0.5
    assert f'(process {first.pid}, since' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [lock_owner.LOCK]
  first.communicate()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('changes', 'is_alive'),
  [
    ({}, True),
    # Its id belongs to another process now.
    pytest.param({'ticks': 1}, False, marks=needs_proc),
    ({'pid': ENDED}, False),
    ({'pid': 10**30}, False),
  ],
)
@pytest.mark.parametrize('proc', ['/proc', '/nowhere'])  # Or as on macOS.
def test_a_process_is_known_by_its_start_time_too(
  tmp_path, changes, is_alive, proc, monkeypatch
):
  if proc == '/nowhere' and not shutil.which('ps'):
    pytest.skip('needs the program ps')
  monkeypatch.setattr(lock_owner, '_PROC', proc)
  left_by(tmp_path, **changes)
  if is_alive:
    with pytest.raises(FolderInUse):
      lock(tmp_path).acquire()
  else:
    lock(tmp_path).acquire()
    folder_lock.release_all()


ELSEWHERE = [
  {'host': 'node7', 'pid': ENDED},
  {'boot': 'another', 'pid': ENDED},  # Two machines of one name.
  {'namespace': 'pid:[1]', 'pid': 1},  # Two containers of one name.
]


@pytest.mark.parametrize('owner', ELSEWHERE)
def test_a_silent_run_elsewhere_is_replaced_after_it_was_watched(
  tmp_path, capsys, owner
):
  left_by(tmp_path, age=3600, **owner)
  began = time.monotonic()
  with lock(tmp_path):
    assert 0.3 <= time.monotonic() - began < 0.9
  text = capsys.readouterr().err
  assert 'waiting for at most' in text and 'takes it over' in text


@pytest.mark.parametrize('age', [0.5, -3600])  # The latter has another clock.
def test_a_run_elsewhere_that_was_just_killed_is_waited_for(tmp_path, age):
  left_by(tmp_path, age=age, **ELSEWHERE[0])
  began = time.monotonic()
  with lock(tmp_path):
    assert 0.3 <= time.monotonic() - began < 1.5


@pytest.mark.parametrize('age', [0, 3600])  # The latter has another clock.
def test_a_living_run_elsewhere_is_not_replaced(tmp_path, age):
  path = left_by(tmp_path, age=age, **ELSEWHERE[0])
  ended = threading.Event()

  def beat():
    times = path.stat().st_mtime_ns
    while not ended.wait(0.1):
      times += 10**8
      os.utime(path, ns=(times, times))

  thread = threading.Thread(target=beat)
  thread.start()
  try:
    with pytest.raises(FolderInUse, match='on node7'):
      lock(tmp_path).acquire()
  finally:
    ended.set()
    thread.join()


def test_a_run_that_is_ending_is_waited_for(tmp_path, capsys):
  asked = threading.Event()
  first = lock(
    tmp_path,
    asked_to_end=lambda: exit_codes.PREEMPTED if asked.is_set() else None,
  )
  first.acquire()
  asked.set()
  path = tmp_path / lock_owner.LOCK
  while not lock_owner.read(path).is_ending:
    time.sleep(0.01)
  # The second is another process: this one holds the folder already.
  second = holder(tmp_path)
  # It says so before it waits, however long it took to start.
  assert 'which is ending: waiting' in second.stderr.readline()
  assert second.poll() is None
  first.release()
  assert second.stdout.readline() == 'held\n'
  second.communicate('')


def test_who_waits_heeds_a_signal(tmp_path):
  left_by(tmp_path, **ELSEWHERE[0])
  waiting = lock(tmp_path, asked_to_end=lambda: exit_codes.PREEMPTED)
  with pytest.raises(FolderInUse, match='stopped while waiting') as caught:
    waiting.acquire()
  assert exit_codes.classify(caught.value) is exit_codes.PREEMPTED


def test_a_run_shows_signs_of_life_and_ends_when_it_lost_its_folder(
  tmp_path, monkeypatch, capsys
):
  ended = threading.Event()
  monkeypatch.setattr(folder_lock.os, '_exit', lambda code: ended.set())
  with lock(tmp_path):
    path = tmp_path / lock_owner.LOCK
    before = path.stat().st_mtime_ns
    path.unlink()  # Removed by hand: it is put back.
    while not path.exists() or path.stat().st_mtime_ns == before:
      time.sleep(0.01)
    assert not ended.is_set()
    left_by(tmp_path, host='node7')
    assert ended.wait(10)
  assert 'was taken over by `cdm train` on node7' in capsys.readouterr().err
  assert path.exists()  # It is the other run's now.


def test_a_kill_while_a_dead_run_is_replaced_is_no_obstacle(tmp_path):
  """The first start had created its file, and was killed before renaming."""
  left_by(tmp_path, pid=ended_pid())
  next_name = f'{lock_owner.LOCK}.{"ab" * 8}'
  content = json.loads((tmp_path / lock_owner.LOCK).read_text(encoding='utf-8'))
  content |= {'token': 'cd' * 8}
  (tmp_path / next_name).write_text(json.dumps(content), encoding='utf-8')
  (tmp_path / f'{lock_owner.LOCK}.new.{"ef" * 8}').touch()
  with lock(tmp_path) as mine:
    assert [p.name for p in tmp_path.iterdir()] == [lock_owner.LOCK]
    assert lock_owner.read(tmp_path / lock_owner.LOCK).token == mine.token


def test_of_many_that_find_a_dead_run_one_replaces_it(tmp_path):
  """The slow must not remove the lock of the fast."""
  for _ in range(3):
    left_by(tmp_path, pid=ended_pid())
    starts = [holder(tmp_path) for _ in range(3)]
    said = sorted(process.stdout.readline() for process in starts)
    assert said == ['', '', 'held\n']
    for process in starts:
      process.communicate('')


def test_who_was_too_slow_to_replace_a_dead_run_notices(tmp_path, monkeypatch):
  """Another start replaces it after this one has read the dead lock."""
  left_by(tmp_path, pid=ended_pid())
  create = FolderLock._create

  def slowly(self, path):
    left_by(tmp_path, token='cd' * 8)  # of a living run
    return create(self, path)

  monkeypatch.setattr(FolderLock, '_create', slowly)
  with pytest.raises(FolderInUse):
    lock(tmp_path).acquire()
  assert [p.name for p in tmp_path.iterdir()] == [lock_owner.LOCK]
  assert lock_owner.read(tmp_path / lock_owner.LOCK).token == 'cd' * 8


@pytest.mark.parametrize('content', [b'', b'{"pid": ', b'[1]\n', b'\xff' * 99])
def test_a_damaged_lock_counts_as_that_of_another_machine(tmp_path, content):
  path = tmp_path / lock_owner.LOCK
  path.write_bytes(content)
  os.utime(path, (0, 0))
  began = time.monotonic()
  with lock(tmp_path):
    assert time.monotonic() - began >= 0.3


def test_a_lock_cannot_name_a_file_elsewhere(tmp_path):
  left_by(tmp_path, token='/../../escape', age=3600)
  assert lock_owner.read(tmp_path / lock_owner.LOCK).owner is None


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
  other = tmp_path / 'precious'
  other.write_text('mine', encoding='utf-8')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / lock_owner.LOCK).symlink_to(other)
  with pytest.raises(OSError, match='--out=.* cannot be written: .* links'):
    lock(tmp_path / 'run').acquire()
  assert other.read_text(encoding='utf-8') == 'mine'


def test_file_systems_without_hard_links_do_too(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.EPERM, 'Operation not permitted')

  monkeypatch.setattr(folder_lock.os, 'link', refuse)
  with lock(tmp_path):
    assert (tmp_path / lock_owner.LOCK).exists()
    with pytest.raises(FileExistsError):
      lock_owner.write_new(tmp_path / lock_owner.LOCK, b'')
  left_by(tmp_path, pid=ended_pid())
  with lock(tmp_path) as mine:
    assert lock_owner.read(tmp_path / lock_owner.LOCK).token == mine.token


def test_a_folder_may_be_held_twice_by_one_process(tmp_path):
  with folder_lock.hold(tmp_path, 'cdm cas'):
    with folder_lock.hold(tmp_path / '..' / tmp_path.name, 'cdm train'):
      pass
    assert (tmp_path / lock_owner.LOCK).exists()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_releases_the_folder_and_keeps_what_is_in_it(tmp_path, error):
  folder = tmp_path / 'a' / 'b'
  with pytest.raises(error), folder_lock.hold(folder, 'cdm train'):
    (tmp_path / 'a' / 'mine').touch()
    raise error
  assert [p.name for p in (tmp_path / 'a').iterdir()] == ['mine']


def test_the_folder_of_partial_results_goes_when_it_is_empty(tmp_path):
  folder = tmp_path / 'partial'
  folder.mkdir()
  for _ in range(2):
    held = folder_lock.hold_until_end(folder, 'cdm evaluate')
  held.release(entirely=True)
  assert not folder.exists()


@pytest.mark.parametrize('place', ['gs://bucket/run', pathlib.Path('gs://b/r')])
def test_a_bucket_must_be_mounted(place):
  with pytest.raises(ValueError, match=r'gs:/.* no path .* Mount the'):
    lock(place).acquire()
  assert not pathlib.Path('gs:').exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match='--out=.*file/run cannot be written: Not'):
    lock(tmp_path / 'file' / 'run').acquire()


def test_partial_results_go_on_where_nothing_can_be_written(tmp_path, capsys):
  (tmp_path / 'file').touch()
  with partial_results.hold_folder(tmp_path / 'file' / 'a'):
    pass
  text = capsys.readouterr().err
  assert 'partial results are not kept' in text and 'cannot be written' in text
