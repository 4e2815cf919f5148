"""Two runs of two processes share programs, whatever lies elsewhere."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import types

import pytest

import cdm
from cdm.distributed import program_cache

HOUSE = pathlib.Path(cdm.__file__).parent

# One program of all processes, and one that each has for itself.
CODE = """
import collections, json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import cdm
from cdm.distributed import compilation_cache

seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event]))
rank, count, port = map(int, sys.argv[1:])
if count > 1:
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'127.0.0.1:{port}', count, rank)
compilation_cache.enable_compilation_cache()

def ours(x):
  return (x @ x.T).sum()

def mine(x):
  return x * 2 + 1

split = NamedSharding(Mesh(np.array(jax.devices()), 'a'), PartitionSpec('a'))
rows = jax.make_array_from_callback(
  (2, 3), split, lambda index: np.ones((2, 3), 'f4')[index]
)
total = jax.jit(ours)(rows)
jax.jit(mine)(np.ones(3, 'f4')).block_until_ready()
found = seen['/jax/compilation_cache/cache_hits']
asked = seen['/jax/compilation_cache/compile_requests_use_cache']
print(json.dumps([float(total), asked, found, cdm.__file__]), file=sys.stderr)
"""


def checkout(folder):
  """Copies what the code needs. Returns the path of the program in it."""
  for part in ('distributed', 'data/files'):
    shutil.copytree(HOUSE / part, folder / 'cdm' / part)
  for file in ('__init__.py', 'data/__init__.py', 'data/shell_commands.py'):
    shutil.copy(HOUSE / file, folder / 'cdm' / file)
  program = folder / 'program.py'
  program.write_text(CODE, encoding='utf-8')
  return program


def run(program, cache, *, count, home):
  """-> [(total, programs asked for, programs found)] of each process."""
  home.mkdir(parents=True, exist_ok=True)
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  # Files that XLA writes for GPUs only: the flags change nothing here.
  paths = [
    f'--xla_gpu_per_fusion_autotune_cache_dir={home}',
    f'--xla_gpu_dump_autotune_logs_to={home}/log',
  ]
  environment = os.environ | {
    'PYTHONPATH': str(program.parent),
    'HOME': str(home),
    'JAX_NUM_CPU_DEVICES': '1',
    'XLA_FLAGS': ' '.join(paths),
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  processes = [
    subprocess.Popen(
      [sys.executable, program.name, str(rank), str(count), str(port)],
      cwd=program.parent,
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
      encoding='utf-8',
    )
    for rank in range(count)
  ]
  found = []
  for process in processes:
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said[-3000:]
    line = next(line for line in said.splitlines() if line.startswith('['))
    total, asked, hits, file = json.loads(line)
    assert pathlib.Path(file).is_relative_to(program.parent)
    found.append((total, asked, hits))
  return found


def test_a_restart_elsewhere_compiles_nothing_in_any_process(tmp_path):
  """Another checkout, another home, other paths in flags, a moved cache."""
  first = checkout(tmp_path / 'a')
  before = run(first, tmp_path / 'one', count=2, home=tmp_path / 'alice')
  assert [total for total, _, _ in before] == [12, 12]
  assert all(asked >= 2 and not hits for _, asked, hits in before)
  (tmp_path / 'mounted').mkdir()
  (tmp_path / 'one').rename(tmp_path / 'mounted/two')
  second = checkout(tmp_path / 'home/bob/other/b')
  after = run(second, tmp_path / 'mounted/two', count=2, home=tmp_path / 'bob')
  assert after == [(total, asked, asked) for total, asked, _ in before]


def test_a_program_in_a_bucket_is_found_by_the_next_process(tmp_path):
  from support import gcs_server  # skips where the clients are missing

  program = checkout(tmp_path / 'a')
  with gcs_server.used(tmp_path / 'cache') as cloud:
    # As a path writes it.
    cache = pathlib.Path('gs://bucket/a/programs')
    found = [
      run(program, cache, count=1, home=tmp_path / name)[0] for name in 'ab'
    ]
    names = [name for _, name in cloud.objects]
  assert found[0][2] == 0 and found[1][2] == found[1][1] >= 2
  assert sum(name.startswith('a/programs/jit_') for name in names) >= 2
  assert not (program.parent / 'gs:').exists()


@pytest.fixture
def programs(tmp_path):
  """A cache of programs as JAX makes it."""
  program_cache.install()
  from jax._src import compilation_cache

  cache, _ = compilation_cache.get_file_cache(str(tmp_path / 'programs'))
  return cache


def test_half_an_entry_is_replaced(programs, tmp_path):
  """JAX leaves it, and compiles the program again at every start."""
  programs.put('jit_f-1', b'a whole program')
  entry = tmp_path / 'programs/jit_f-1-cache'
  entry.write_bytes(b'a who')
  programs.put('jit_f-1', b'a whole program')
  assert programs.get('jit_f-1') == b'a whole program'
  assert list((tmp_path / 'programs').iterdir()) == [entry]


def test_a_full_disk_leaves_no_half_entry(programs, tmp_path, monkeypatch):
  def full(self, data):
    with open(self, 'wb') as file:
      file.write(data[:3])
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  with pytest.raises(OSError, match='No space left'):
    programs.put('jit_f-1', b'a whole program')
  assert programs.get('jit_f-1') is None
  assert not list((tmp_path / 'programs').iterdir())


WRITE = """
import sys
from cdm.distributed import program_cache
program_cache.install()
from jax._src import compilation_cache
cache, _ = compilation_cache.get_file_cache(sys.argv[1])
print('ready', flush=True)
for _ in range(20):
  cache.put('jit_f-1', sys.argv[2].encode() * 300_000)
"""


def test_who_reads_while_two_write_sees_a_whole_program(programs, tmp_path):
  with contextlib.ExitStack() as stack:
    writers = [
      stack.enter_context(
        subprocess.Popen(
          [sys.executable, '-c', WRITE, str(tmp_path / 'programs'), sign],
          stdout=subprocess.PIPE,
          env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
        )
      )
      for sign in 'ab'
    ]
    for writer in writers:
      assert writer.stdout.read(5) == b'ready'
    seen = set()
    while None in [writer.poll() for writer in writers]:
      found = programs.get('jit_f-1')
      if found is not None:
        assert len(found) == 300_000 and found == found[:1] * len(found)
        seen.add(found[:1])
  assert seen
  assert [writer.returncode for writer in writers] == [0, 0]


@pytest.mark.parametrize(
  ('folder', 'is_limited'), [('gs://b/c', False), ('/nowhere', True)]
)
def test_a_bucket_and_a_cache_of_limited_size_stay_with_jax(folder, is_limited):
  """An object is whole by nature; the other has a lock, and times of use."""

  class OfJax:
    path = folder
    eviction_enabled = is_limited
    put_by_jax = ()

    def put(self, key, value):
      self.put_by_jax = (key, value)

  cache = program_cache._written_whole(OfJax)()
  cache.put('jit_f-1', b'a program')
  assert cache.put_by_jax == ('jit_f-1', b'a program')


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
@pytest.mark.parametrize('rank', [0, 1])
def test_which_processes_write(platform, rank, monkeypatch):
  """On accelerators all processes look for the program that the first keeps."""
  from jax._src import compilation_cache, distributed

  state = types.SimpleNamespace(process_id=rank)
  monkeypatch.setattr(distributed, 'global_state', state)
  jax_wrote, we_wrote = [], []
  monkeypatch.setattr(
    compilation_cache,
    'put_executable_and_time',
    lambda *given: we_wrote.append(given),
  )
  write = program_cache._by_every_process_on_cpus(
    lambda *given: jax_wrote.append(given)
  )
  backend = types.SimpleNamespace(platform=platform)
  given = ('key', 1e9, 'jit_f', backend, 'program')
  write(*given)
  own = platform == 'cpu' and rank == 1
  assert jax_wrote == ([] if own else [given])
  assert we_wrote == ([('key', 'jit_f', 'program', backend, 10**9)] * own)
  # Not worth a file; and one with the address of a callback in this process.
  write('key', -1.0, 'jit_f', backend, 'program')
  write('key', 1e9, 'jit_f', backend, 'program', [object()])
  assert len(we_wrote) == own


def test_this_release_of_jax_is_changed_as_the_module_says():
  """The names are private to JAX: another release may have others."""
  program_cache.install()
  from jax._src import cache_key, compilation_cache, compiler

  assert compilation_cache.LRUCache.__name__ == 'WholePrograms'
  for function in (
    cache_key._hash_serialized_compile_options,
    compiler._cache_write,
  ):
    assert function.__module__.startswith('jax.')
    assert hasattr(function, '__wrapped__')
  flags = cache_key.xla_flags_to_exclude_from_cache_key
  assert {f'--{name}' for name in program_cache.PATHS} <= set(flags)
