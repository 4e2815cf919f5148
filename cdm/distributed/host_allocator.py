"""Keeps the memory that a step has freed for the next step, on CPUs.

On a CPU, XLA asks the C library for the buffers of every step: some hundred
megabytes at once. glibc takes such blocks from the system and gives them back
when they are freed, so that every step touches fresh pages. Each first touch of
a page is a fault, and together they take an eighth of the time of a step
(docs/performance.md). These settings let glibc keep freed blocks.
`checkpointing.freed_memory` still returns what a save has freed.
"""

import ctypes
import os

from cdm.distributed import chip_flags

# Numbers of malloc.h, with what they are set to: never give the end of the heap
# back; take no block from the system directly; have one heap for all threads,
# because the heap of a thread holds no large blocks.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_SETTINGS = ((_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0), (_ARENA_MAX, 1))
# A user who has set one of these knows better.
_VARIABLES = (
  'MALLOC_TRIM_THRESHOLD_',
  'MALLOC_MMAP_MAX_',
  'MALLOC_MMAP_THRESHOLD_',
  'MALLOC_ARENA_MAX',
  'MALLOC_TOP_PAD_',
)
_TUNABLES = 'GLIBC_TUNABLES'


def keep_freed_memory_on_cpus() -> bool:
  """Calls `keep_freed_memory` where JAX will compute on CPUs.

  Must be called before JAX starts a backend: a thread that has allocated
  already keeps a heap of its own.
  """
  asked = os.environ.get('JAX_PLATFORMS', '').lower().split(',')[0]
  if asked not in ('', 'cpu') or chip_flags.chip_at_hand(os.environ):
    return False
  return keep_freed_memory()


def keep_freed_memory() -> bool:
  """Lets glibc keep freed blocks in this process; returns whether it does.

  It does not where the C library is another one, or where the environment
  already chooses how glibc allocates.
  """
  if any(name in os.environ for name in _VARIABLES):
    return False
  if 'glibc.malloc' in os.environ.get(_TUNABLES, ''):
    return False
  try:
    mallopt = ctypes.CDLL('libc.so.6').mallopt
  except (OSError, AttributeError):  # not glibc
    return False
  return all(mallopt(name, value) == 1 for name, value in _SETTINGS)
