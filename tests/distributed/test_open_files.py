"""The limit of open files: raised at the start, named when it is reached."""

import errno
import importlib
import os
import subprocess
import sys

import pytest

from cdm.data.files import damaged_file
from cdm.distributed import exit_codes, open_files

resource = pytest.importorskip('resource')  # Windows has none.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class Limits:
  """The module `resource` of a system with these limits."""

  RLIMIT_NOFILE, RLIM_INFINITY = 7, resource.RLIM_INFINITY

  def __init__(self, soft, hard, most=None):
    self.now, self.most = (soft, hard), most

  def getrlimit(self, which):
    assert which == self.RLIMIT_NOFILE
    return self.now

  def setrlimit(self, which, limits):
    soft, hard = limits
    assert hard == self.now[1]
    if self.most is not None and soft > self.most:
      raise ValueError('Invalid argument')  # As macOS says.
    self.now = limits


@pytest.mark.parametrize(
  ('limits', 'raised'),
  [
    (Limits(1024, 4096), 4096),
    (Limits(256, resource.RLIM_INFINITY, most=10240), 10240),  # macOS
    (Limits(256, resource.RLIM_INFINITY), open_files.MOST),
    (Limits(1024, 10**9), open_files.MOST),  # a container
    (Limits(4096, 4096), 4096),
    (Limits(10**9, 10**9), 10**9),
    (Limits(2**21, 2**22), 2**21),
  ],
)
def test_the_limit_is_raised_as_far_as_the_system_lets(
  limits, raised, monkeypatch
):
  monkeypatch.setattr(open_files, '_resource', lambda: limits)
  open_files.raise_limit()
  assert limits.now[0] == raised


def test_a_system_without_limits_is_left_alone(monkeypatch):
  def missing(name):
    raise ModuleNotFoundError(name)

  monkeypatch.setattr(importlib, 'import_module', missing)
  open_files.raise_limit()
  told = open_files.explain(OSError(errno.EMFILE, 'Too many open files', 'a'))
  assert 'a cannot be opened: too many files are open' in str(told)


def caused(error, cause):
  error.__cause__ = cause
  return error


MANY = OSError(errno.EMFILE, 'Too many open files', 'images-0')


@pytest.mark.parametrize(
  ('error', 'what'),
  [
    (MANY, 'images-0'),
    (caused(ValueError('Cannot read.'), MANY), 'images-0'),
    (
      RuntimeError('open() failed: Too many open files; opening b'),
      'opening b',
    ),
    (OSError(errno.ENFILE, os.strerror(errno.ENFILE), 'c'), 'c'),
  ],
)
def test_the_limit_is_recognized_and_its_numbers_are_named(
  error, what, monkeypatch
):
  monkeypatch.setattr(open_files, '_resource', lambda: Limits(64, 4096))
  told = open_files.explain(error)
  assert damaged_file.too_many_open(error)
  assert f'{what} cannot be opened: too many files' in str(told)
  assert 'open 64 (`ulimit -n`), and its user at most 4,096' in str(told)
  assert exit_codes.classify(told) is exit_codes.BAD_INPUT


@pytest.mark.parametrize(
  'error', [OSError(errno.ENOENT, 'No such file', 'a'), ValueError('x')]
)
def test_other_errors_stay_what_they_are(error):
  assert open_files.explain(error) is error
  assert not damaged_file.too_many_open(error)


MANY_SHARDS = """
import os, resource, sys
from cdm.cli import main
from cdm.cli.commands import evaluate
from cdm.data import array_record, shard_writer
hard_too, place = sys.argv[1] == 'hard', sys.argv[2]
paths = [os.path.join(place, f'{n}.array_record') for n in range(60)]
for path in paths:
  with shard_writer.new_shard(path) as write:
    write(b'x')
low = len(os.listdir('/dev/fd')) + 20
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (low, low if hard_too else hard))
def run(args):
  shards = [array_record.open_shards([path]) for path in paths]
  print([shard[0] for shard in shards].count(b'x'))
evaluate.run = run
sys.exit(main.main(['evaluate', '--samples=a', '--reference=b']))
"""


@pytest.mark.parametrize('which', ['soft', 'hard'])
def test_a_command_opens_more_shards_than_it_was_started_for(which, tmp_path):
  """And names the limit that it cannot raise, instead of a damaged shard."""
  pytest.importorskip('array_record')
  done = subprocess.run(
    [sys.executable, '-c', MANY_SHARDS, which, tmp_path],
    cwd=ROOT,
    env={**os.environ, 'NO_COLOR': '1'},
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  if which == 'soft':
    assert (done.returncode, done.stdout) == (0, '60\n'), done.stderr
    return
  assert done.returncode == 2 and not done.stdout
  (line,) = done.stderr.splitlines()
  assert line.startswith('cdm: error: ') and '`ulimit -n`' in line
  assert '.array_record' in line and 'damaged' not in line
