"""A file is whole or not there, whatever happens while it is written."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from cdm.data import atomic_files as copy_of_data
from cdm.reporting import atomic_files, image_files

both = pytest.mark.parametrize('module', [atomic_files, copy_of_data])


def names(folder):
  return sorted(path.name for path in folder.iterdir())


@both
def test_a_file_appears_at_the_end_and_nothing_beside_it(tmp_path, module):
  path = tmp_path / 'a.json'
  with module.write_atomically(path) as partial:
    partial.write_text('whole')
    assert names(tmp_path) == ['.a.json.partial']
    assert partial.name == module.partial_name('a.json')
  assert (names(tmp_path), path.read_text()) == (['a.json'], 'whole')
  with module.write_atomically(str(path)) as partial:
    partial.write_text('new')
    assert path.read_text() == 'whole'
  assert (names(tmp_path), path.read_text()) == (['a.json'], 'new')


@both
@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize('old', [None, 'old'])
def test_an_error_leaves_the_old_file_alone(tmp_path, module, error, old):
  path = tmp_path / 'a.json'
  if old:
    path.write_text(old)
  with pytest.raises(error), module.write_atomically(path) as partial:
    partial.write_text('ha')
    raise error
  assert names(tmp_path) == (['a.json'] if old else [])
  assert not old or path.read_text() == old


@both
@pytest.mark.parametrize('missing', ['file', 'folder'])
def test_what_was_never_written_does_not_appear(tmp_path, module, missing):
  path = tmp_path / ('none/a' if missing == 'folder' else 'a')
  with pytest.raises(FileNotFoundError), module.write_atomically(path) as part:
    if missing == 'folder':
      part.write_text('x')
  assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from cdm.{package} import atomic_files
with atomic_files.write_atomically(sys.argv[1]) as partial:
  partial.write_text('half of what is lo')
  os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize('package', ['reporting', 'data'])
def test_a_killed_process_leaves_the_old_file(tmp_path, package):
  """What it had begun is hidden, and goes when the file is written again."""
  path = tmp_path / 'a.json'
  path.write_text('old')
  program = KILLED.format(package=package)
  killed = subprocess.run([sys.executable, '-c', program, path])
  assert killed.returncode == -signal.SIGKILL
  assert path.read_text() == 'old'
  assert names(tmp_path) == ['.a.json.partial', 'a.json']
  atomic_files.write_text_atomically(path, 'new')
  assert (names(tmp_path), path.read_text()) == (['a.json'], 'new')


@both
def test_the_disk_has_a_file_before_it_gets_its_name(
  tmp_path, module, monkeypatch
):
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
  with module.write_atomically(path) as partial:
    partial.write_text('x')
  assert calls == [('fsync', False), ('replace', False)]
  # A picture is one of thousands, and does not wait for the disk.
  image_files.write_png(tmp_path / 'a.png', np.zeros((2, 2, 3), np.uint8))
  assert [name for name, _ in calls[2:]] == ['replace']


def test_two_processes_may_write_one_file_at_the_same_time(tmp_path):
  path = tmp_path / 'a.json'
  with atomic_files.write_atomically(path, shared=True) as mine:
    mine.write_text('one')
    with atomic_files.write_atomically(path, shared=True) as other:
      other.write_text('two')
    assert path.read_text() == 'two'
  assert (names(tmp_path), path.read_text()) == (['a.json'], 'one')
  for partial in (mine, other):
    assert partial.match(atomic_files.partial_name('*'))
