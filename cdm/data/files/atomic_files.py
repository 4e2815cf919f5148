"""Writes files atomically: a file appears complete or not at all.

The bytes go to an unfinished file in the same folder, which is renamed when it
is complete. Its name, .NAME.HOST-BOOT-PID-INDEX.RANDOM.partial, belongs to one
process, so that two of them never write the same file, and so that the next run
can tell what a killed process has left. In every container the first process
has the same id, and containers may have the same host name; the index of the
process in its run and a random part keep their names apart. Code that lists a
folder ignores unfinished files.
"""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import socket
import sys
import time
from collections.abc import Generator

from cdm.data.files import storage_retry

# An unfinished file of another machine that was not written to for this long
# belongs to no living process.
ABANDONED_SECONDS = 3600.0
_PROC = '/proc'
_index = 0  # of this process in its run


def set_process_index(index: int) -> None:
  """Sets what the names of this process's unfinished files carry from now on.

  Args:
    index: of this process among those of its run.
  """
  global _index
  _index = index


def partial_name(name: str) -> str:
  """Returns a new name for an unfinished file, of this process alone.

  Args:
    name: name of the complete file.
  """
  # A file name has 255 bytes at most. The complete file may need all of them.
  name = os.fsencode(name)[:120].decode(errors='ignore')
  return f'.{name}.{_owner()[0]}{os.getpid()}-{unique_part()}.partial'


def unique_part() -> str:
  """Returns INDEX.RANDOM, which no other process and no other call returns."""
  return f'{_index}.{secrets.token_hex(6)}'


def is_partial(name: str) -> bool:
  """Returns whether this is the name of an unfinished file, of any process."""
  return name.startswith('.') and name.endswith('.partial')


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
  """Removes the unfinished files that killed processes have left in a folder.

  A file is abandoned if its process was one of this machine and this container
  and has ended, or if nothing was written to it for an hour. Files of living
  runs stay. Where the system does not tell one container from another, only
  the hour counts.

  Args:
    folder: path of a folder, which need not exist.
  """
  # An entry may vanish meanwhile, or belong to somebody else.
  with contextlib.suppress(OSError), os.scandir(folder) as entries:
    for entry in entries:
      if is_partial(entry.name):
        with contextlib.suppress(OSError):
          if _is_abandoned(entry):
            os.unlink(entry.path)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
  words = entry.name.removesuffix('.partial').rsplit('-', 2)
  owner, is_certain = _owner()
  # On Windows, os.kill sends a signal even to ask.
  here = os.name == 'posix' and f'{words[0]}-'.endswith(f'.{owner}')
  if len(words) == 3 and here and is_certain:
    try:
      os.kill(int(words[1]), 0)
    except (ProcessLookupError, OverflowError):
      return True
    except (PermissionError, ValueError):
      pass
  age = time.time() - entry.stat(follow_symlinks=False).st_mtime
  return age > ABANDONED_SECONDS


def _owner() -> tuple[str, bool]:
  """Returns what tells the process ids of one container from another's.

  Returns:
    (text, whether no other container can have the same). Linux has containers,
    and tells its boot and the namespace of the process ids, unless a sandbox
    hides them.
  """
  host = re.sub(r'[^A-Za-z0-9]', '_', socket.gethostname())[:40]
  where, is_certain = '', not sys.platform.startswith('linux')
  with contextlib.suppress(OSError):
    # Two machines may have one name, and every container counts from 1.
    boot = f'{_PROC}/sys/kernel/random/boot_id'
    with open(boot, encoding='utf-8') as file:
      where = file.read(8)
    where += re.sub(r'\D', '', os.readlink(f'{_PROC}/self/ns/pid'))
    is_certain = True
  return f'{host}-{where}-', is_certain


def _create(partial: pathlib.Path) -> None:
  """Creates an unfinished file, and follows no link that has its name."""
  # Windows has no flag against links.
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_NOFOLLOW', 0)
  os.close(os.open(partial, flags, 0o666))


def _name_disk_errors(error: OSError, path: pathlib.Path) -> None:
  """Adds the path to an error of a full disk, which comes without one."""
  full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
  if error.errno in full and error.filename is None:
    error.filename = os.fspath(path)


@contextlib.contextmanager
def write_atomically(
  path: str | os.PathLike, *, durable: bool = True
) -> Generator[pathlib.Path]:
  """Context manager: yields a path to write to, renamed to `path` on success.

  The path is that of an empty file. An error inside (a full disk, Ctrl-C)
  leaves the old file, if there was one, and removes the unfinished one. A
  killed process leaves the old file too, and its unfinished file until
  `remove_abandoned`.

  Args:
    path: path of the file, in a folder that exists.
    durable: whether to wait a few milliseconds for the disk before the file is
      renamed. Otherwise a power cut may leave it empty.
  """
  path = pathlib.Path(path)
  partial = path.with_name(partial_name(path.name))
  try:
    _create(partial)
    yield partial
    if durable:
      with open(partial, 'rb+') as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException as error:
    if isinstance(error, OSError):
      _name_disk_errors(error, path)
    with contextlib.suppress(OSError):
      partial.unlink()
    raise


def write_text_atomically(path: str | os.PathLike, text: str) -> None:
  """Writes a text file atomically, in UTF-8; see `write_atomically`.

  It tries again while an error may pass, see `storage_retry`. File names in the
  text may hold bytes that are no UTF-8. They are escaped.
  """

  def write() -> None:
    with write_atomically(path) as partial:
      partial.write_text(text, encoding='utf-8', errors='backslashreplace')

  storage_retry.retried(write, f'Writing {path}')


def rename(path: str | os.PathLike, to: str | os.PathLike) -> None:
  """Gives a whole file another name, which no file has yet, in its folder."""
  os.replace(path, to)
