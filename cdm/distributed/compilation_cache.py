"""Turns on JAX's persistent compilation cache, so that a restart is fast."""

import os
import re

import jax

from cdm.data.files import atomic_files
from cdm.distributed import (
  bucket_folders,
  collectives,
  program_cache,
  user_cache,
)

# A path writes gs://bucket/a as gs:/bucket/a, and nobody means such a folder.
_COLLAPSED = re.compile(r'^([a-z][a-z0-9+.-]+):/(?!/)')


def enable_compilation_cache(
  path: str | os.PathLike | None = None,
  *,
  workdir: str | os.PathLike | None = None,
) -> str | None:
  """Keeps compiled programs on disk, so that a second start is fast.

  The environment variables JAX_COMPILATION_CACHE_DIR and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS, where set, take precedence. A run
  whose cache cannot be used goes on without one, after a warning. From a folder
  that may be read and not written, programs are read.

  Process 0 writes programs, on CPUs every process does (`program_cache`), and
  all read them. So a run of several processes keeps them where all of them see
  them, in its work directory: what process 0 leaves in a home of its own
  machine, the other machines would compile again at every start.

  Args:
    path: directory, or URL of a folder in a bucket; by default `cdm/xla` in the
      user's cache directory.
    workdir: the work directory of a run; it has been joined. It is used where
      the run has several processes and no path is given.

  Returns:
    The directory or URL in use, or None.
  """
  given = os.environ.get('JAX_COMPILATION_CACHE_DIR') or path
  if given is not None:
    directory = _checked(os.fspath(given))
  elif workdir is not None and collectives.process_count() > 1:
    # JAX makes it when there is something to keep: a start that is refused
    # leaves no trace.
    place = bucket_folders.shown(os.path.abspath(workdir))
    directory = f'{place}/{bucket_folders.COMPILED}'
  else:
    directory = _default()
  is_local = directory is not None and '://' not in directory
  if is_local:
    atomic_files.remove_abandoned(directory)
  program_cache.install()
  jax.config.update('jax_compilation_cache_dir', directory)
  if (
    not is_local and 'JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES' not in os.environ
  ):
    # XLA itself, which tunes kernels of GPUs, can write into no bucket.
    jax.config.update('jax_persistent_cache_enable_xla_caches', 'none')
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    # Programs that compile faster than this are not worth a file.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  return directory


def _default() -> str | None:
  try:
    return str(user_cache.folder('xla'))
  except OSError as error:
    user_cache.warn(f'compiled programs are not kept. {error}')
    return None


def _checked(given: str) -> str | None:
  """Returns a folder or URL that can be used, or None after a warning."""
  given = _COLLAPSED.sub(r'\1://', given)
  if '://' in given:
    if bucket_folders.is_url(given):
      bucket_folders.prefer_gcsfs()
      try:
        bucket_folders.prepare()
      except ValueError as error:
        user_cache.warn(f'compiled programs are not kept: {error}')
        return None
    return given  # JAX itself reads and writes there.
  directory = user_cache.expand(given)
  reason = user_cache.why_unusable(directory)
  if reason is None:
    return directory
  if os.path.isdir(directory) and os.access(directory, os.R_OK | os.X_OK):
    user_cache.warn(
      f'compiled programs are read from JAX_COMPILATION_CACHE_DIR={given}, and '
      f'no new ones are kept: it {reason}.'
    )
    return directory
  user_cache.warn(
    f'compiled programs are not kept: JAX_COMPILATION_CACHE_DIR={given} '
    f'{reason}.'
  )
  return None
