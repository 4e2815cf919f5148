"""Checks that --out can be written before hours of work, then writes results.

A result file appears complete or not at all.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Generator

from cdm.data.files import atomic_files, storage_retry

# No output folder of a command is meant to have a name that ends so.
_FILE_SUFFIXES = (
  '.bmp', '.csv', '.gif', '.html', '.jpeg', '.jpg', '.json', '.jsonl', '.md',
  '.npy', '.npz', '.pdf', '.png', '.tif', '.tiff', '.txt', '.webp', '.zip',
)  # fmt: skip


def check_folder_name(
  folder: str | os.PathLike, *, flag: str = '--out'
) -> None:
  """Raises ValueError if the path of an output folder is the name of a file.

  Nothing is created.

  Args:
    folder: path of the folder.
    flag: flag of the command that gave the path, for error messages.
  """
  folder = pathlib.Path(folder)
  if folder.suffix.lower() in _FILE_SUFFIXES and not folder.is_dir():
    raise ValueError(
      f'{flag}={folder} is the name of a file, and this command writes a '
      f'folder of files; give {flag}={folder.with_suffix("")}.'
    )


def check(
  path: str | os.PathLike, *, flag: str = '--out', overwrite: bool = False
) -> None:
  """Creates the folder of a file to be written, and tries to write into it.

  Args:
    path: path of the file.
    flag: flag of the command that gave the path, for error messages.
    overwrite: whether a file that is there may be replaced.

  Raises:
    ValueError: if the path is a folder, a file is there, or its folder cannot
      be created or written to.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(f'{flag}={path} is a folder; give the name of a file.')
  if os.path.lexists(path) and not overwrite:
    raise ValueError(
      f'{flag}={path} exists and would be overwritten; give another {flag}, or '
      '--overwrite to replace it.'
    )
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

  def write() -> None:
    with write_result(path) as partial:
      partial.write_text(text, encoding='utf-8', errors='backslashreplace')

  storage_retry.retried(write, f'Writing {path}')
