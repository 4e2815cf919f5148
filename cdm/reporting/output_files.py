"""Checks that --out can be written before hours of work, then writes results.

A result file appears complete or not at all.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Generator

from cdm.reporting import atomic_files


def check(path: str | os.PathLike, *, flag: str = '--out') -> None:
  """Creates the folder of a file to be written, and tries to write into it.

  Args:
    path: path of the file.
    flag: flag of the command that gave the path, for error messages.

  Raises:
    ValueError: if the path is a folder, or its folder cannot be created or
      written to.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(f'{flag}={path} is a folder; give the name of a file.')
  check_folder(path.parent, given=path, flag=flag)


def check_folder(
  folder: str | os.PathLike,
  *,
  given: str | os.PathLike | None = None,
  flag: str = '--out',
) -> None:
  """Creates a folder and tries to write into it.

  Args:
    folder: path of the folder.
    given: value of the flag, for error messages; the folder by default.
    flag: flag of the command that gave the path, for error messages.

  Raises:
    ValueError: if the folder cannot be created or written to.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and not folder.is_dir():
    raise ValueError(
      f'{flag}={given or folder} cannot be written: {folder} is a file, but '
      'must be a folder.'
    )
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
      file.write(b'.')
  except OSError as error:
    raise ValueError(
      f'{flag}={given or folder} cannot be written: {folder}: '
      f'{error.strerror}. Give a path that can be written.'
    ) from error


@contextlib.contextmanager
def write_result(path: str | os.PathLike) -> Generator[pathlib.Path]:
  """Context manager: yields a path to write to, renamed to `path` on success.

  Raises:
    OSError: if the file could not be written. Its message is one sentence, and
      no unfinished file remains.
  """
  try:
    with atomic_files.write_atomically(path) as partial:
      yield partial
  except OSError as error:
    raise OSError(
      f'{path} could not be written ({error.strerror or error}); no partial '
      'file is left. Free space and start the same command again.'
    ) from error


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file in UTF-8, which appears complete or not at all."""
  with write_result(path) as partial:
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')
