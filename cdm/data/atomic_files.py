"""Writes a file whole or not at all: the copy of a package that stands alone.

`cdm.data` imports nothing of cdm, so what it needs of
`cdm.reporting.atomic_files` stands here again; one test holds both.
"""

import contextlib
import os
import pathlib


def partial_name(name):
  """-> name of the unfinished file of `name`, which may be a glob pattern."""
  return f'.{name}.partial'


@contextlib.contextmanager
def write_atomically(path):
  """Context: gives a path to write to, which becomes `path` when all is well.

  Any error inside leaves the old file, if there was one, and nothing beside it.
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
