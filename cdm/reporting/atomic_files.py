"""Writes a file whole or not at all, whatever ends the writing.

The bytes go to an unfinished file beside it, .NAME.partial, which takes the
place of the old file at one stroke. Whatever lists a folder ignores those.
"""

import contextlib
import os
import pathlib
import secrets


def partial_name(name):
  """-> name of the unfinished file of `name`, which may be a glob pattern."""
  return f'.{name}.partial'


@contextlib.contextmanager
def write_atomically(path, *, shared=False, durable=True):
  """Context: gives a path to write to, which becomes `path` when all is well.

  An error inside (a full disk, Ctrl-C) leaves the old file, if there was one,
  and nothing beside it. A killed process leaves the old file too; what it had
  begun is written over when the same file is written again.

  Args:
    path: of the file, in a folder that is there.
    shared: whether several processes may write this file at the same time.
      Each then has an unfinished file of its own, which a kill leaves behind.
    durable: whether to wait for the disk, a few milliseconds, before the file
      gets its name. Otherwise a power cut may leave it empty.
  """
  path = pathlib.Path(path)
  # Random, because containers on one file system may all have process number 1.
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


def write_text_atomically(path, text, *, shared=False):
  """Writes a text file as `write_atomically` does."""
  with write_atomically(path, shared=shared) as partial:
    partial.write_text(text)
