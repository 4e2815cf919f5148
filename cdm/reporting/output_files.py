"""Writes a result whole or not at all, where it was first seen to be possible.

What takes hours is not lost to a name that cannot be written.
"""

import contextlib
import pathlib
import tempfile

from cdm.reporting import atomic_files


def check(path, *, flag='--out'):
  """Makes the folder of a file that is to be written, and tries it.

  Args:
    path: of the file.
    flag: that gave it.

  Raises:
    ValueError: it is a folder, or none of its own can be made there.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(f'{flag}={path} is a folder; give the name of a file.')
  check_folder(path.parent, given=path, flag=flag)


def check_folder(folder, *, given=None, flag='--out'):
  """Makes a folder and tries to write into it.

  Args:
    folder: its path.
    given: what the flag says; the folder by default.
    flag: that gave it.

  Raises:
    ValueError: it cannot be written.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and not folder.is_dir():
    raise ValueError(
      f'{flag}={given or folder} cannot be written: {folder} is a file, and a '
      'folder is wanted there.'
    )
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
      file.write(b'.')
  except OSError as error:
    raise ValueError(
      f'{flag}={given or folder} cannot be written: {folder}: '
      f'{error.strerror}. Give a place that can be.'
    ) from error


@contextlib.contextmanager
def whole(path):
  """Context: a path to write to, which becomes `path` when all is well.

  Raises:
    OSError: it could not be written; nothing is left of it.
  """
  try:
    with atomic_files.write_atomically(path) as partial:
      yield partial
  except OSError as error:
    raise OSError(
      f'{path} could not be written ({error.strerror or error}), and nothing '
      'is left of it. Make room and start again.'
    ) from error


def write_text(path, text):
  """Writes a text file, whole or not at all."""
  with whole(path) as partial:
    partial.write_text(text)
