"""Writes a file whole or not at all: to a partial name first, then renamed."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def completing(path):
  """Context: gives a path to write to, which becomes `path` when all is well.

  If it is not (a full disk, Ctrl-C), nothing is left behind.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.name}.partial')
  try:
    yield partial
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise
