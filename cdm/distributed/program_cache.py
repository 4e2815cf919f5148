"""Makes JAX's cache of compiled programs one that hosts and folders share.

JAX writes an entry in place and leaves an entry that exists as it is. So a
process that is killed in the middle, or a full disk, would leave half a program
that every later start fails to read, and compiles again. Here an entry is
written under another name and renamed, also over one that is there.

JAX finds a program by a hash. It leaves out where the source files lie, but not
every path: XLA's options hold the folder of the cache itself (JAX 0.10), and
files for XLA's own caches and logs. Such paths say nothing of the program, and
are left out here.

JAX lets process 0 alone write, because all processes look for one hash. On CPUs
they do not: the hash has the description of the local devices, whose ids differ
from process to process. So there every process writes its own.

All of this replaces private functions of JAX, which have no public counterpart.
Where a release of JAX has other names, that part of JAX is left as it is.
"""

from __future__ import annotations

import copy
import functools
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

from cdm.data.files import atomic_files

# Fields of XLA's options with the path of something that XLA writes, or keeps
# for a later compilation. JAX leaves out a few of its own accord.
PATHS = (
  'xla_dump_to',
  'xla_gpu_dump_autotune_logs_to',
  'xla_gpu_dump_autotune_results_to',
  'xla_gpu_kernel_cache_file',
  'xla_gpu_per_fusion_autotune_cache_dir',
)


@functools.cache
def install() -> None:
  """Changes JAX's cache of this process as the module says; once."""
  from jax._src import cache_key, compilation_cache, compiler

  for module, name, change in (
    (compilation_cache, 'LRUCache', _written_whole),
    (cache_key, '_hash_serialized_compile_options', _without_paths),
    (compiler, '_cache_write', _by_every_process_on_cpus),
  ):
    original = getattr(module, name, None)
    if original is not None:
      setattr(module, name, change(original))
  excluded = getattr(cache_key, 'xla_flags_to_exclude_from_cache_key', [])
  excluded += [f'--{name}' for name in PATHS if f'--{name}' not in excluded]


def _written_whole(original: Any) -> type:
  """Returns JAX's class of a cache's folder, with entries that are whole."""

  class WholePrograms(original):
    """A folder of compiled programs, none of which is ever half there."""

    def put(self, key: str, value: bytes) -> None:
      """Writes an entry, also over one that is there."""
      folder = os.fspath(self.path)
      # An object in a bucket is whole by nature. A cache of limited size has a
      # lock and a second file for each entry, of which JAX takes care.
      if '://' in folder or self.eviction_enabled:
        super().put(key, value)
        return
      path = pathlib.Path(folder) / f'{key}-cache'
      with atomic_files.write_atomically(path) as partial:
        partial.write_bytes(value)

  return WholePrograms


def _without_paths(original: Callable) -> Callable:
  @functools.wraps(original)
  def hashed(hash_obj: Any, options: Any, *more: Any, **named: Any) -> Any:
    options = copy.deepcopy(options)  # The compiler gets the original.
    debug = options.executable_build_options.debug_options
    for name in PATHS:
      if getattr(debug, name, ''):
        setattr(debug, name, '')
    return original(hash_obj, options, *more, **named)

  return hashed


def _by_every_process_on_cpus(original: Callable) -> Callable:
  @functools.wraps(original)
  def write(
    key: str,
    seconds: float,
    name: str,
    backend: Any,
    executable: Any,
    *callbacks: Any,
  ) -> None:
    from jax._src import compilation_cache, config, distributed

    if distributed.global_state.process_id == 0 or backend.platform != 'cpu':
      original(key, seconds, name, backend, executable, *callbacks)
      return
    # Callbacks of JAX 0.10 are addresses of this process.
    least = config.persistent_cache_min_compile_time_secs.value
    if any(callbacks) or seconds < least:
      return
    try:
      compilation_cache.put_executable_and_time(
        key, name, executable, backend, int(seconds)
      )
    except Exception as error:  # As JAX does: a run goes on without its cache.
      warnings.warn(
        f'The compiled program {name} could not be kept: {error}', stacklevel=2
      )

  return write
