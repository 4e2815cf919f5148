"""Compiled programs are kept on disk, and one process writes them."""

import os
import subprocess
import sys

import pytest

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
