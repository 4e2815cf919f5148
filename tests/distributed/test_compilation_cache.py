"""Compiled programs are kept on disk, and one process writes them."""

import os
import subprocess
import sys

import jax
import pytest

from cdm.distributed import bucket_folders, collectives, compilation_cache

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
def test_process_0_alone_writes_the_folder_that_all_share(tmp_path, process):
  """The folder is the one that the launchers name in the environment."""
  folder = tmp_path / 'run' / 'compilation_cache'
  environment = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': str(folder),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PLATFORMS': 'cpu',
  }
  subprocess.run(
    [sys.executable, '-c', CODE, str(process)], env=environment, check=True
  )
  assert any(folder.iterdir()) == (process == 0)


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
  before = jax.config.jax_compilation_cache_dir
  try:
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
  finally:
    bucket_folders._mirrors.clear()
    jax.config.update('jax_compilation_cache_dir', before)
