"""A folder of this process alone, which is erased even after a kill.

It is made where temporary files lie, readable by its owner only. It goes when
the process ends. A killed process leaves it, locked by nobody who lives, and
the next start erases it.
"""

import contextlib
import os
import pathlib
import shutil
import stat
import tempfile
import time
from collections.abc import Generator

from cdm.distributed import folder_lock, lock_owner

PREFIX = 'cdm-serve-'
_WHAT = 'cdm serve'
_BETWEEN_SECONDS = 60.0


@contextlib.contextmanager
def made(where: str | None = None) -> Generator[pathlib.Path]:
  """Context manager that yields a new folder, which is erased at its end.

  Folders that killed processes have left are erased first.

  Args:
    where: the folder that it lies in; None is that of temporary files.

  Raises:
    ValueError: it cannot be made.
  """
  erase_abandoned(where)
  try:
    path = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))  # 0700
  except OSError as error:
    raise ValueError(
      f'No folder for pictures could be made ({error.strerror or error}); set '
      'TMPDIR to a folder that can be written.'
    ) from error
  try:
    with folder_lock.FolderLock(path, _WHAT):
      yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)


def erase_abandoned(where: str | None = None) -> None:
  """Erases folders whose process lives no more.

  Args:
    where: see `made`.
  """
  parent = pathlib.Path(where or tempfile.gettempdir())
  for path in parent.glob(f'{PREFIX}*'):
    if _is_ours(path) and _is_free(path):
      shutil.rmtree(path, ignore_errors=True)


def _is_ours(path):
  """Whether a path is a folder of this user, and no link to another."""
  try:
    found = path.lstat()
  except OSError:
    return False
  own = os.name != 'posix' or found.st_uid == os.getuid()
  return stat.S_ISDIR(found.st_mode) and own


def _is_free(path):
  # Another start makes a folder first and locks it then.
  if not (path / lock_owner.LOCK).exists() and _age(path) < _BETWEEN_SECONDS:
    return False
  lock = folder_lock.FolderLock(path, _WHAT)
  try:
    if not lock.attempt():
      return False
  except (ValueError, OSError):  # It is held, or cannot be written.
    return False
  lock.release()
  return True


def _age(path):
  """Returns the seconds since a folder was changed."""
  try:
    return time.time() - path.lstat().st_mtime
  except OSError:
    return 0.0
