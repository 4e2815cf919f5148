"""Writes a file completely or not at all, for the package `cdm.data`.

`cdm.data` imports no other package of cdm, so it has its own copy of what it
needs from `cdm.reporting.atomic_files`. The same tests run on both.
"""

import contextlib
import os
import pathlib
from collections.abc import Generator


def partial_name(name: str) -> str:
  """Returns the name of the unfinished file of `name`.

  `name` may be a glob pattern.
  """
  return f'.{name}.partial'


@contextlib.contextmanager
def write_atomically(
  path: str | os.PathLike[str],
) -> Generator[pathlib.Path, None, None]:
  """Context manager that yields a path to write to, renamed to `path` at exit.

  After any error inside, the old file is still there if there was one, and the
  unfinished file is deleted.
  """
  path = pathlib.Path(path)
  partial = path.with_name(partial_name(path.name))
  try:
    yield partial
    with open(partial, 'rb+') as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise
