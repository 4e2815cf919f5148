"""One set-up for every test: eight CPU devices and strict JAX.

Set before JAX is first imported, so that the mesh tests see eight devices on
any machine and a key used twice or a silent broadcast is an error.
"""

import atexit
import gc
import os
import shutil
import tempfile
from importlib import metadata

# What is traced and compiled stays, and Python would go through it again and
# again in search of garbage: up to a quarter of the processor time. As `cdm`.
gc.set_threshold(20_000, 10, 10)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# As `cdm` does before etils asks.
os.environ.setdefault('EPATH_USE_TF', 'false')
# gcsfs asks the real service for a bucket's layout otherwise, and waits.
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
# cdm warns a user who has no home, as in a container, and so would every test.
if not os.path.isdir(os.path.expanduser('~')):
  os.environ['HOME'] = tempfile.mkdtemp(prefix='cdm-tests-home-')
  atexit.register(shutil.rmtree, os.environ['HOME'], ignore_errors=True)
# A folder for compiled programs, which all processes of one run of the tests
# share: whichever comes first compiles.
if 'CDM_TESTS_PROGRAMS' not in os.environ:
  os.environ['CDM_TESTS_PROGRAMS'] = tempfile.mkdtemp(prefix='cdm-tests-xla-')
  atexit.register(
    shutil.rmtree, os.environ['CDM_TESTS_PROGRAMS'], ignore_errors=True
  )
# Tests compile far longer than they run: code made in a hurry is right as
# well, and is ready in a third of the time.
COMPILER_FLAGS = [
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
  # Each part is compiled with overheads of its own.
  '--xla_cpu_parallel_codegen_split_count=1',
]
# jaxlib refuses to start over a flag that it does not know, and 0.12 has left
# this one out. The emitters of fusions are a third of the work of compiling.
if metadata.version('jaxlib').startswith('0.10.'):
  COMPILER_FLAGS.append('--xla_cpu_use_fusion_emitters=false')
FLAGS = ('--xla_force_host_platform_device_count=8', *COMPILER_FLAGS)
given = os.environ.get('XLA_FLAGS', '')
missing = [flag for flag in FLAGS if flag.split('=')[0] not in given]
os.environ['XLA_FLAGS'] = ' '.join([given, *missing]).strip()

import jax  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)
jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update('jax_compilation_cache_dir', os.environ['CDM_TESTS_PROGRAMS'])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.05)

# The longest files, first: begun last, one of them would leave all processes
# but its own idle for minutes.
FIRST = (
  'test_mesh.py',
  'test_two_processes.py',
  'test_configs.py',
  'test_recovery.py',
  'test_compare_sets_two_processes.py',
  'test_study.py',
  'test_cas.py',
  'test_compare_sets.py',
  'test_restores.py',
  'test_other_averages.py',
  'test_distillation.py',
  'test_scale.py',
  'test_two_players.py',
  'test_bucket.py',
)


def pytest_collection_modifyitems(items):
  """Puts the long files first; otherwise the order stays."""
  rank = {name: n for n, name in enumerate(FIRST)}
  items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
