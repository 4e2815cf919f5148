"""A file is whole or not there, whatever happens while it is written."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from cdm.data.files import atomic_files
from cdm.reporting import image_files


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_and_nothing_beside_it(tmp_path):
  path = tmp_path / 'a.json'
  with atomic_files.write_atomically(path) as partial:
    partial.write_text('whole', encoding='utf-8')
    assert names(tmp_path) == [partial.name]
    assert atomic_files.is_partial(partial.name) and '.a.json.' in partial.name
  assert (names(tmp_path), path.read_text(encoding='utf-8')) == (
    ['a.json'],
    'whole',
  )
  with atomic_files.write_atomically(str(path)) as partial:
    partial.write_text('new', encoding='utf-8')
    assert path.read_text(encoding='utf-8') == 'whole'
  assert (names(tmp_path), path.read_text(encoding='utf-8')) == (
    ['a.json'],
    'new',
  )


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize('old', [None, 'old'])
def test_an_error_leaves_the_old_file_alone(tmp_path, error, old):
  path = tmp_path / 'a.json'
  if old:
    path.write_text(old, encoding='utf-8')
  with pytest.raises(error), atomic_files.write_atomically(path) as partial:
    partial.write_text('ha', encoding='utf-8')
    raise error
  assert names(tmp_path) == (['a.json'] if old else [])
  assert not old or path.read_text(encoding='utf-8') == old


def test_a_missing_folder_is_not_made(tmp_path):
  with (
    pytest.raises(FileNotFoundError),
    atomic_files.write_atomically(tmp_path / 'none' / 'a'),
  ):
    pass
  assert names(tmp_path) == []


def test_an_unfinished_file_never_follows_a_link(tmp_path, monkeypatch):
  """Even if somebody has guessed its name."""
  precious = tmp_path / 'precious'
  precious.write_text('mine', encoding='utf-8')
  (tmp_path / '.guessed.partial').symlink_to(precious)
  monkeypatch.setattr(
    atomic_files, 'partial_name', lambda name: '.guessed.partial'
  )
  with (
    pytest.raises(FileExistsError),
    atomic_files.write_atomically(tmp_path / 'a'),
  ):
    pass
  assert precious.read_text(encoding='utf-8') == 'mine'


def test_a_full_disk_is_said_of_the_file(tmp_path):
  error = OSError(errno.ENOSPC, 'No space left on device')  # as write() raises
  with pytest.raises(OSError, match='No space left.*a.json'):
    with atomic_files.write_atomically(tmp_path / 'a.json'):
      raise error


@pytest.mark.parametrize('name', ['n' * 251 + '.png', 'ö' * 127])
def test_the_longest_names_can_be_written(tmp_path, name):
  with atomic_files.write_atomically(tmp_path / name) as partial:
    partial.write_text('whole', encoding='utf-8')
  assert names(tmp_path) == [name]


KILLED = """
import os, signal, sys
from cdm.data.files import atomic_files
with atomic_files.write_atomically(sys.argv[1]) as partial:
  partial.write_text('half of what is lo')
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_the_old_file(tmp_path):
  """What it had begun is hidden, and goes when the next run cleans up."""
  path = tmp_path / 'a.json'
  path.write_text('old', encoding='utf-8')
  killed = subprocess.run([sys.executable, '-c', KILLED, path])
  assert killed.returncode == -signal.SIGKILL
  assert path.read_text(encoding='utf-8') == 'old'
  partial, _ = names(tmp_path)
  assert atomic_files.is_partial(partial)
  atomic_files.remove_abandoned(tmp_path)
  assert (names(tmp_path), path.read_text(encoding='utf-8')) == (
    ['a.json'],
    'old',
  )


def test_unfinished_files_of_living_runs_stay(tmp_path):
  mine = tmp_path / atomic_files.partial_name('mine')
  # Nobody here can tell whether this one's process lives.
  other = tmp_path / '.a.node7-12345678-1-abcdef.partial'
  old = tmp_path / '.b.node7-12345678-1-abcdef.partial'
  for path in (mine, other, old, tmp_path / 'file.partial'):
    path.touch()
  os.utime(old, (0, 0))
  atomic_files.remove_abandoned(tmp_path)
  assert names(tmp_path) == sorted([mine.name, other.name, 'file.partial'])
  atomic_files.remove_abandoned(tmp_path / 'none')


def test_the_disk_has_a_file_before_it_gets_its_name(tmp_path, monkeypatch):
  """Or else a power cut could leave an empty file under the name."""
  path, calls = tmp_path / 'a.json', []

  def watched(name):
    real = getattr(os, name)

    def call(*args):
      calls.append((name, path.exists()))
      return real(*args)

    monkeypatch.setattr(os, name, call)

  watched('fsync')
  watched('replace')
  with atomic_files.write_atomically(path) as partial:
    partial.write_text('x', encoding='utf-8')
  assert calls == [('fsync', False), ('replace', False)]
  # A picture is one of thousands, and does not wait for the disk.
  image_files.write_png(tmp_path / 'a.png', np.zeros((2, 2, 3), np.uint8))
  assert [name for name, _ in calls[2:]] == ['replace']


def test_two_processes_may_write_one_file_at_the_same_time(tmp_path):
  path = tmp_path / 'a.json'
  with atomic_files.write_atomically(path) as mine:
    mine.write_text('one', encoding='utf-8')
    with atomic_files.write_atomically(path) as other:
      other.write_text('two', encoding='utf-8')
    assert path.read_text(encoding='utf-8') == 'two'
  assert (names(tmp_path), path.read_text(encoding='utf-8')) == (
    ['a.json'],
    'one',
  )
  assert mine != other


def test_names_differ_between_processes_that_share_host_and_id(
  tmp_path, monkeypatch
):
  """As in containers: the index of the process and a random part differ."""
  monkeypatch.setattr(atomic_files.os, 'getpid', lambda: 1)
  monkeypatch.setattr(atomic_files.socket, 'gethostname', lambda: 'worker')
  names = []
  for index in (0, 3, 3):
    monkeypatch.setattr(atomic_files, '_index', index)
    names.append(atomic_files.partial_name('a.json'))
  assert len(set(names)) == 3
  assert ['-1-3.' in name for name in names] == [False, True, True]
  assert all(map(atomic_files.is_partial, names))


def test_where_containers_cannot_be_told_apart_only_age_counts(
  tmp_path, monkeypatch
):
  """A sandbox may hide both the boot and the namespace of process ids."""
  monkeypatch.setattr(atomic_files, '_PROC', str(tmp_path / 'no'))
  monkeypatch.setattr(atomic_files.sys, 'platform', 'linux')
  name = atomic_files.partial_name('a').replace(f'-{os.getpid()}-', '-999999-')
  young, old = tmp_path / name, tmp_path / f'.b{name}'
  for path in (young, old):
    path.write_text('', encoding='utf-8')
  os.utime(old, (0, 0))
  atomic_files.remove_abandoned(tmp_path)
  assert young.exists() and not old.exists()


def test_a_write_that_fails_for_a_while_is_made_again(tmp_path, monkeypatch):
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '5')
  calls, replace = [], os.replace

  def fail_twice(*paths):
    calls.append(paths)
    if len(calls) <= 2:
      raise OSError(errno.EIO, 'Input/output error', paths[1])
    replace(*paths)

  monkeypatch.setattr(atomic_files.os, 'replace', fail_twice)
  atomic_files.write_text_atomically(tmp_path / 'a.json', 'whole')
  assert len(calls) == 3 and names(tmp_path) == ['a.json']
  assert (tmp_path / 'a.json').read_text(encoding='utf-8') == 'whole'
