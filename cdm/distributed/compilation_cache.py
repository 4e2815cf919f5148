"""Turns on JAX's persistent compilation cache, so that a restart is fast."""

import os
import pathlib

import jax


def enable_compilation_cache(
  path: str | os.PathLike | None = None,
) -> pathlib.Path:
  """Keeps compiled programs on disk, so that a second start is fast.

  The environment variables JAX_COMPILATION_CACHE_DIR and
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS, where set, take precedence.

  Args:
    path: directory; by default `cdm/xla` in the user's cache directory.

  Returns:
    The directory in use.
  """
  variable = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  path = pathlib.Path(variable or path or pathlib.Path(home) / 'cdm' / 'xla')
  jax.config.update('jax_compilation_cache_dir', str(path))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    # Programs that compile faster than this are not worth a file.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  return path
