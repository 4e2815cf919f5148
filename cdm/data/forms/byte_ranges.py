"""Reads parts of large files, from any thread and any process."""

import functools
import os
import threading

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

_MOST_OPEN = 256  # files; a data set of 1,024 shards must not open them all


class _Descriptor:
  """An open file that is closed when nothing refers to it any more."""

  def __init__(self, path: str):
    # Without O_BINARY Windows would translate the ends of lines.
    flags = getattr(os, 'O_CLOEXEC', 0) | getattr(os, 'O_BINARY', 0)
    self.number = os.open(path, os.O_RDONLY | flags)
    self._lock = threading.Lock()

  def read(self, offset: int, length: int) -> bytes:
    """Returns up to `length` bytes from an offset on, in any thread."""
    if hasattr(os, 'pread'):
      return os.pread(self.number, length, offset)
    with self._lock:  # Windows: one thread at a time moves the position.
      os.lseek(self.number, offset, os.SEEK_SET)
      return os.read(self.number, length)

  def __del__(self) -> None:
    if hasattr(self, 'number'):
      os.close(self.number)


@functools.lru_cache(_MOST_OPEN)
def _opened(path: str, process: int) -> _Descriptor:
  del process  # A forked process must not share its parent's descriptor.
  return _Descriptor(path)


def read(path: str | os.PathLike[str], offset: int, length: int) -> bytes:
  """Returns `length` bytes of a file from `offset` on.

  Up to 256 files stay open, and the least recently read is closed first.

  Raises:
    DamagedFile: the file ends earlier.
    OSError: the file cannot be read.
  """
  path = os.fspath(path)
  file = _opened(path, os.getpid())
  parts, got = [], 0
  while got < length:
    part = file.read(offset + got, length - got)
    if not part:
      raise DamagedFile(
        f'{printable(path)} ends at byte {offset + got:,}, inside of a record '
        f'that ends at {offset + length:,}. Copy or download it again.'
      )
    parts.append(part)
    got += len(part)
  return b''.join(parts) if len(parts) != 1 else parts[0]
