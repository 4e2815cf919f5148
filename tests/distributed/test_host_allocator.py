"""Freed blocks are kept for the next step, counted by the system's faults."""

import os
import subprocess
import sys

import pytest

from cdm.distributed import host_allocator

# Allocates, fills and frees 256 MB in a thread, as XLA does in every step, and
# prints the page faults of the last time.
PROGRAM = """
import ctypes, resource, sys, threading
from cdm.distributed import host_allocator
if sys.argv[1] == 'keep':
  print(host_allocator.keep_freed_memory())
libc = ctypes.CDLL('libc.so.6')
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def step():
  block = libc.malloc(256 << 20)
  libc.memset(block, 1, 256 << 20)
  libc.free(block)
for _ in range(3):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  thread = threading.Thread(target=step)
  thread.start()
  thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
on_glibc = pytest.mark.skipif(
  not sys.platform.startswith('linux') or not os.confstr('CS_GNU_LIBC_VERSION'),
  reason='needs glibc',
)


def run(mode, **variables):
  environment = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(('MALLOC_', 'GLIBC_TUNABLES'))
  }
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, mode],
    env={**environment, **variables},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split()


@on_glibc
def test_a_step_faults_no_page_that_the_one_before_has_touched():
  pages = (256 << 20) // os.sysconf('SC_PAGE_SIZE')
  (usual,) = run('leave')
  kept, faults = run('keep')
  assert kept == 'True'
  assert int(faults) < 1000
  # Whole pages of 4 kB; fewer where the system maps large ones.
  assert int(usual) > pages / 1024


@on_glibc
@pytest.mark.parametrize(
  'variables',
  [
    {'MALLOC_ARENA_MAX': '2'},
    {'MALLOC_TRIM_THRESHOLD_': '131072'},
    {'GLIBC_TUNABLES': 'glibc.malloc.arena_max=2'},
  ],
)
def test_what_the_user_has_set_stays(variables):
  kept, _ = run('keep', **variables)
  assert kept == 'False'


def test_another_c_library_is_left_alone(monkeypatch):
  def missing(name):
    raise OSError(f'{name}: cannot open shared object file')

  for name in (*host_allocator._VARIABLES, host_allocator._TUNABLES):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(host_allocator.ctypes, 'CDLL', missing)
  assert not host_allocator.keep_freed_memory()


@pytest.mark.parametrize(
  ('platforms', 'chip', 'kept'),
  [
    ('cpu', None, True),
    ('', None, True),
    ('', 'TPU v4', False),
    ('cuda,cpu', None, False),
    ('tpu', None, False),
  ],
)
def test_only_processes_that_compute_on_cpus_keep_memory(
  monkeypatch, platforms, chip, kept
):
  monkeypatch.setenv('JAX_PLATFORMS', platforms)
  monkeypatch.setattr(
    host_allocator.chip_flags, 'chip_at_hand', lambda environment: chip
  )
  monkeypatch.setattr(host_allocator, 'keep_freed_memory', lambda: True)
  assert host_allocator.keep_freed_memory_on_cpus() == kept
