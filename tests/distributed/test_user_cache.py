"""Caches go where this user can write, with and without a home."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from cdm.cli import main
from cdm.distributed import compilation_cache, user_cache

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def empty(tmp_path, monkeypatch):
  """-> an empty current folder; temporary files lie beside it."""
  monkeypatch.setenv('TMPDIR', str(tmp_path / 'tmp'))
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  (tmp_path / 'tmp').mkdir()
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  user_cache.warn.cache_clear()
  directory = jax.config.jax_compilation_cache_dir
  yield tmp_path
  jax.config.update('jax_compilation_cache_dir', directory)
  assert not list((tmp_path / 'here').iterdir())


def nobody(monkeypatch):
  """Makes this process that of a user whom the machine does not know."""
  monkeypatch.delenv('HOME', raising=False)

  def unknown(_):
    raise KeyError

  import pwd

  monkeypatch.setattr(pwd, 'getpwuid', unknown)


HOMES = ['unset', '', 'relative', '/nonexistent', '/dev/null']


@pytest.mark.parametrize('home', HOMES)
def test_who_has_no_home_gets_one_and_is_told(empty, monkeypatch, home, capsys):
  if home == 'unset':
    nobody(monkeypatch)
  else:
    monkeypatch.setenv('HOME', home)
  if home == '' and os.access('/', os.W_OK):
    pytest.skip('an empty HOME is /, which this user owns')
  before = os.environ.get('HOME')
  user_cache.ensure_home()
  made = empty / 'tmp' / f'cdm-{os.getuid()}'
  assert os.path.expanduser('~/x') == str(made / 'x')
  assert made.stat().st_mode & 0o777 == 0o700
  told = f'this user has no home directory (HOME is {before!r})'
  assert told in capsys.readouterr().err
  monkeypatch.setenv('HOME', str(made))


def test_a_home_is_left_alone(empty, monkeypatch, capsys):
  monkeypatch.setenv('HOME', str(empty))
  user_cache.ensure_home()
  assert os.environ['HOME'] == str(empty)
  assert user_cache.folder('x') == empty / '.cache' / 'cdm' / 'x'
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('xdg', ['~/cache', 'cache', '{}/cache', ''])
def test_the_cache_is_an_absolute_folder(empty, monkeypatch, xdg):
  monkeypatch.setenv('HOME', str(empty))
  monkeypatch.setenv('XDG_CACHE_HOME', xdg.format(empty))
  expected = empty / ('.cache' if xdg in ('cache', '') else 'cache')
  assert user_cache.folder('x') == expected / 'cdm' / 'x'


def test_a_folder_that_another_user_could_have_made_is_not_taken(
  empty, monkeypatch
):
  monkeypatch.setattr(user_cache, '_TEMPORARY', ())
  monkeypatch.setenv('HOME', '/nonexistent')
  path = empty / 'tmp' / f'cdm-{os.getuid()}'
  for make in (
    lambda: path.mkdir(mode=0o777) or path.chmod(0o777),
    lambda: path.symlink_to(empty),
    lambda: path.write_text('', encoding='utf-8'),
  ):
    make()
    with pytest.raises(OSError, match='No folder for a cache can be written'):
      user_cache.folder('x')
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize('variable', [None, '{}/file/xla', '~/xla', 'gs://b/c'])
def test_programs_are_compiled_with_or_without_a_cache(
  empty, monkeypatch, variable, capsys
):
  """The cache cannot be written: its folder is a file."""
  monkeypatch.setattr(user_cache, '_TEMPORARY', ())
  monkeypatch.setenv('TMPDIR', str(empty / 'file'))
  (empty / 'file').write_text('', encoding='utf-8')
  if variable is None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(empty / 'file'))
  else:
    monkeypatch.setenv('HOME', str(empty))
    variable = variable.format(empty)
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', variable)
  directory = compilation_cache.enable_compilation_cache()
  assert directory == jax.config.jax_compilation_cache_dir
  warned = capsys.readouterr().err
  if variable == '~/xla':
    assert directory == str(empty / 'xla')
  elif variable == 'gs://b/c' and importlib.util.find_spec('gcsfs'):
    assert directory == variable
  else:
    assert directory is None
    assert warned.startswith('cdm: warning: compiled programs are not kept')
    assert len(warned.splitlines()) == 1
    return
  assert warned == ''


def test_a_tilde_in_an_option_is_the_home(empty, monkeypatch):
  monkeypatch.setenv('HOME', str(empty))
  words = ['train', '--config=~/c.py', '--workdir=~/run', '--config.a=~/x']
  argv, _ = main.split_overrides(words)
  args = main.parse(argv)
  main.expand_home(args)
  assert (args.config, args.workdir) == (f'{empty}/c.py', f'{empty}/run')
  monkeypatch.setenv('HOME', '/nonexistent')
  with pytest.raises(ValueError, match='~/x: this user has no home directory'):
    user_cache.expand('~/x')


def test_no_folder_called_tilde_is_made_by_other_libraries(empty):
  """TFDS makes one, where nobody has a home, when a data set is looked for."""
  code = (
    'import pwd; from cdm.cli import main; from cdm.data import tfds\n'
    'def unknown(_): raise KeyError\n'
    'pwd.getpwuid = unknown\n'
    'from cdm.distributed import user_cache; user_cache.ensure_home()\n'
    'try: tfds.Tfds("mnist", "train")\n'
    'except ValueError as error: print(error)\n'
  )
  environment = {k: v for k, v in os.environ.items() if k != 'HOME'}
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**environment, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
    encoding='utf-8',
  )
  assert 'is not prepared' in done.stdout, done.stderr
  assert str(empty / 'tmp') in done.stdout
