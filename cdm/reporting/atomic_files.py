"""Writes files atomically: a file appears complete or not at all.

The bytes go to an unfinished file in the same folder, .NAME.partial, which is
renamed to NAME when it is complete. Code that lists a folder ignores unfinished
files.
"""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Generator


def partial_name(name: str) -> str:
  """Returns the name of the unfinished file.

  Args:
    name: name of the complete file, or a glob pattern.
  """
  return f'.{name}.partial'


@contextlib.contextmanager
def write_atomically(
  path: str | os.PathLike, *, shared: bool = False, durable: bool = True
) -> Generator[pathlib.Path]:
  """Context manager: yields a path to write to, renamed to `path` on success.

  An error inside (a full disk, Ctrl-C) leaves the old file, if there was one,
  and removes the unfinished one. A killed process leaves the old file too, and
  its unfinished file is overwritten when the same file is written again.

  Args:
    path: path of the file, in a folder that exists.
    shared: whether several processes may write this file at the same time.
      Each then has an unfinished file of its own, which a kill leaves behind.
    durable: whether to wait a few milliseconds for the disk before the file is
      renamed. Otherwise a power cut may leave it empty.
  """
  path = pathlib.Path(path)
  # The name is random, because containers that share a file system may all have
  # process id 1.
  name = f'{path.name}.{secrets.token_hex(4)}' if shared else path.name
  partial = path.with_name(partial_name(name))
  try:
    yield partial
    if durable:
      with open(partial, 'rb+') as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def write_text_atomically(
  path: str | os.PathLike, text: str, *, shared: bool = False
) -> None:
  """Writes a text file atomically, in UTF-8; see `write_atomically`.

  File names in the text may hold bytes that are no UTF-8. They are escaped.
  """
  with write_atomically(path, shared=shared) as partial:
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')
