"""Compiled programs are kept where all processes of a run see them."""

import contextlib
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from cdm.distributed import (
  bucket_folders,
  collectives,
  compilation_cache,
  user_cache,
)

CODE = """
import sys
import jax, jax.numpy as jnp
from jax._src import distributed
from cdm.distributed import compilation_cache
distributed.global_state.process_id = int(sys.argv[1])
compilation_cache.enable_compilation_cache()
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
"""


@pytest.mark.parametrize('process', [0, 1])
def test_every_process_on_cpus_writes_the_folder_that_all_share(
  tmp_path, process
):
  """The folder is the one that the launchers name in the environment.

  On accelerators process 0 alone writes, see test_program_cache.
  """
  folder = tmp_path / 'run' / 'compilation_cache'
  environment = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': str(folder),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PLATFORMS': 'cpu',
  }
  subprocess.run(
    [sys.executable, '-c', CODE, str(process)], env=environment, check=True
  )
  names = [path.name for path in folder.iterdir()]
  assert any(name.startswith('jit__lambda') for name in names)


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize('given', [None, 'gs://bucket/programs'])
def test_several_processes_keep_programs_where_all_of_them_see_them(
  tmp_path, monkeypatch, processes, given
):
  """In the user's home process 0 alone would find again what it wrote."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  if given:
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', given)
  monkeypatch.setattr(collectives, 'process_count', lambda: processes)
  monkeypatch.setattr(bucket_folders, '_mirrors', {})
  with _unchanged():
    mirror = bucket_folders.mirror('gs://bucket/run', written=True)
    for workdir, shared in (
      (tmp_path / 'run', str(tmp_path / 'run')),
      (mirror, 'gs://bucket/run'),
    ):
      alone = str(tmp_path / 'home/cdm/xla')
      expected = f'{shared}/compilation_cache' if processes > 1 else alone
      found = compilation_cache.enable_compilation_cache(workdir=workdir)
      assert found == (given or expected)
      assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'url', ['gs://b/c', 'gs:/b/c', pathlib.Path('gs://b/c')]
)
def test_a_url_that_a_path_has_shortened_is_that_url(url, monkeypatch):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.setattr(bucket_folders, 'prepare', lambda: None)
  with _unchanged():
    assert compilation_cache.enable_compilation_cache(url) == 'gs://b/c'
    # XLA would open the URL as a file.
    assert jax.config.jax_persistent_cache_enable_xla_caches == 'none'
  assert not pathlib.Path('gs:').exists()


def test_a_bucket_without_its_client_is_no_cache(monkeypatch, capsys):
  def missing():
    raise ValueError('gs:// needs gcsfs, which is not installed.')

  monkeypatch.setattr(bucket_folders, 'prepare', missing)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'gs://b/no_client')
  with _unchanged():
    assert compilation_cache.enable_compilation_cache() is None
  assert 'compiled programs are not kept: gs:// needs gcsfs' in (
    capsys.readouterr().err
  )


def test_programs_are_read_from_a_folder_of_somebody_else(
  tmp_path, monkeypatch, capsys
):
  """It cannot be written, as a folder of another user or a read-only mount."""
  monkeypatch.setattr(
    user_cache, 'why_unusable', lambda _: 'cannot be written (Read-only)'
  )
  for folder, used in ((tmp_path, str(tmp_path)), (tmp_path / 'none', None)):
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(folder))
    with _unchanged():
      assert compilation_cache.enable_compilation_cache() == used
    said = capsys.readouterr().err
    word = 'are read from' if used else 'are not kept'
    assert f'compiled programs {word}' in said and 'Read-only' in said


@contextlib.contextmanager
def _unchanged():
  """Context: what it changes in JAX's configuration is as before at the end."""
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_enable_xla_caches',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  try:
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
