"""A disk whose writes fail for a while, after a part of what is written."""

import builtins
import errno
import os


class Opener:
  """`open` for a module under test: the first writes fail half-way.

  Attributes:
    failures: how many writes are still to fail.
    code: their error number.
  """

  def __init__(self, failures, code=errno.EIO):
    self.failures, self.code = failures, code

  def __call__(self, *arguments, **more):
    return _File(self, builtins.open(*arguments, **more))


class _File:
  """A file whose `write` may fail; all else is that of the file."""

  def __init__(self, opener, file):
    self._opener, self._file = opener, file

  def write(self, data):
    if not self._opener.failures:
      return self._file.write(data)
    self._opener.failures -= 1
    self._file.write(data[: len(data) // 2])
    self._file.flush()
    code = self._opener.code
    raise OSError(code, os.strerror(code), self._file.name)

  def __getattr__(self, name):
    return getattr(self._file, name)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._file.close()


_RENAME = os.rename


def rename_in_a_flat_bucket(source, target):
  """`os.rename` on a mount by gcsfuse of a bucket with flat namespace.

  As `renameNonHierarchicalDir` of gcsfuse has it with a limit of 0: a folder
  with descendants is refused, an empty one and a file are renamed.
  """
  if os.path.isdir(source) and os.listdir(source):
    text = os.strerror(errno.EMFILE)
    raise OSError(errno.EMFILE, text, source, None, target)
  _RENAME(source, target)
