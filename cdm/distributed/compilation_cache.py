"""Turns on JAX's persistent compilation cache, so that a restart is fast."""

import os

import jax

from cdm.distributed import bucket_folders, collectives, user_cache


def enable_compilation_cache(
  path: str | os.PathLike | None = None,
  *,
  workdir: str | os.PathLike | None = None,
) -> str | None:
  """Keeps compiled programs on disk, so that a second start is fast.

  The environment variables JAX_COMPILATION_CACHE_DIR and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS, where set, take precedence. A run
  whose cache cannot be written goes on without one, after a warning.

  JAX writes programs in process 0 and reads them in all. So a run of several
  processes keeps them where all of them see them, in its work directory: what
  process 0 leaves in a home of its own machine, the other machines would
  compile again at every start.

  Args:
    path: directory; by default `cdm/xla` in the user's cache directory.
    workdir: the work directory of a run; it has been joined. It is used where
      the run has several processes and no path is given.

  Returns:
    The directory in use, or None.
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
  jax.config.update('jax_compilation_cache_dir', directory)
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
  if '://' in given:
    return given  # In a bucket, which JAX itself reads and writes.
  directory = user_cache.expand(given)
  reason = user_cache.why_unusable(directory)
  if reason is not None:
    user_cache.warn(
      f'compiled programs are not kept: JAX_COMPILATION_CACHE_DIR={given} '
      f'{reason}.'
    )
    return None
  return directory
