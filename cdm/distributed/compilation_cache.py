"""Keeps compiled programs on disk, so that a second start is fast."""

import os
import pathlib

import jax


def enable_compilation_cache(path=None):
  """Keeps compiled programs on disk, so that a second start is fast.

  Args:
    path: directory; by default `cdm/xla` in the user's cache directory. The
      variable JAX_COMPILATION_CACHE_DIR, where set, wins, as does
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS.

  Returns:
    The directory in use.
  """
  given = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  path = pathlib.Path(given or path or pathlib.Path(home) / 'cdm' / 'xla')
  jax.config.update('jax_compilation_cache_dir', str(path))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    # Programs that compile faster than this are not worth a file.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  return path
