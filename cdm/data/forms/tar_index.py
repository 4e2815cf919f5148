"""Finds the members of a tar, and where their bytes are, without reading them.

A tar has no directory: the header of each member tells where the next one is.
Python's `tarfile` parses the headers. What it does not mind is refused here,
because it would lose images: a header that is damaged, an archive that is cut
short between two members, and data behind its end.

A tar inside a tar is read as a part of the file, so it is not unpacked either.
"""

import collections
import io
import os
import shlex
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from cdm.data.files import transient_errors
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import byte_ranges, foreign_content, member_names
from cdm.data.printable_name import printable

_LARGEST_HEADER_BYTES = 1 << 20  # of the texts that belong to one member
# Programs fill a tar up to a multiple of 10 KiB, of up to 1 MiB if asked to.
_LARGEST_FILLING_BYTES = 1 << 20
# What compressed tars begin with, and the program that unpacks them.
_PACKED = (
  (b'\x1f\x8b', 'gunzip'),
  (b'BZh', 'bunzip2'),
  (b'\xfd7zXZ', 'unxz'),
  (b'\x28\xb5\x2f\xfd', 'unzstd'),
)


class Member(NamedTuple):
  """A file inside a tar.

  Attributes:
    name: its path, checked by `member_names`.
    offset: where its bytes begin in the file around it.
    size: how many there are.
  """

  name: str
  offset: int
  size: int


def members(
  path: str | os.PathLike[str],
  left_out: collections.Counter[str],
  outer: Member | None = None,
) -> Iterator[Member]:
  """Yields the files in a tar, in their order.

  Args:
    path: the tar, which is not compressed.
    left_out: counts what is neither file nor folder: links, devices, pipes,
      sparse files.
    outer: the member of this tar that is a tar itself, and whose files are
      meant.

  Raises:
    DamagedFile: it is damaged, or is no tar.
    ValueError: it is compressed.
    OSError: it cannot be read.
  """
  path = os.fspath(path)
  name = path if outer is None else f'{path}/{outer.name}'
  part = _Part(path, outer)
  try:
    yield from _parsed(part, name, left_out)
  except (DamagedFile, MemoryError):
    raise
  except Exception as error:  # tarfile raises nearly anything on damaged bytes
    if transient_errors.not_of_the_file(error) or isinstance(error, OSError):
      raise
    raise _refusal(path, name, part, error) from error


def _refusal(path, name, part, error) -> ValueError:
  head = part.read_at(0, 8)
  for magic, program in _PACKED:
    if head.startswith(magic):
      remedy = f'Unpack it once: {_unpacking(program, path)}'
      if name != path:
        remedy = 'Unpack the tar around it and those in it.'
      return ValueError(
        f'{printable(name)} is compressed, so no image in it can be read by '
        f'itself. {remedy}'
      )
  reason = printable(error).rstrip('.') or type(error).__name__
  if part.begin == 0 and not part.last:
    return DamagedFile(
      f'{printable(name)} cannot be read as a tar ({reason}). '
      f'{foreign_content.remedy(path)}'
    )
  return DamagedFile(
    f'{printable(name)} is damaged at byte {part.begin + part.last:,} '
    f'({reason}). Copy or download it again.'
  )


def _unpacking(program, path):
  """Returns the command that unpacks a file, whatever its suffix is."""
  stem, suffix = os.path.splitext(path)
  if suffix == '.tar':
    stem += '-unpacked.tar'
  elif not stem.endswith('.tar'):
    stem += '.tar'
  return f'{program} < {shlex.quote(path)} > {shlex.quote(stem)}'


class _Part(io.RawIOBase):
  """The part of a file that one tar fills, as tarfile reads it.

  Attributes:
    begin: where it begins in the file.
    size: how many bytes it has.
    last: how much of it was parsed without a fault.
  """

  def __init__(self, path: str, outer: Member | None):
    if outer is None:
      self.begin, self.size = 0, os.stat(path).st_size
    else:
      self.begin, self.size = outer.offset, outer.size
    self._path, self._position, self.last = path, 0, 0

  def tell(self) -> int:
    return self._position

  def seek(self, position: int, whence: int = 0) -> int:
    if whence or position < 0:
      raise ValueError('a header points before the beginning')
    self._position = position
    return position

  def read(self, length: int = -1) -> bytes:
    # A header may say that another one of many gigabytes follows.
    if not 0 <= length <= _LARGEST_HEADER_BYTES:
      raise ValueError(f'a header says that it has {length:,} bytes')
    data = self.read_at(self._position, length)
    self._position += len(data)
    return data

  def read_at(self, position: int, length: int) -> bytes:
    length = max(0, min(length, self.size - position))
    return byte_ranges.read(self._path, self.begin + position, length)


def _parsed(part, name, left_out) -> Iterator[Member]:
  tar = tarfile.TarFile(fileobj=part, encoding='utf-8')
  end = 0
  # tarfile has read the first member already.
  info = tar.next()
  while info is not None:
    end = tar.offset
    if end <= info.offset or info.size < 0:
      raise ValueError('a header points backwards')
    if info.offset_data + info.size > part.size:
      raise ValueError(f'it is cut short: {info.name[:200]!r} ends behind it')
    if info.issparse():
      left_out['sparse file'] += 1
    elif info.isreg():
      path = member_names.checked(info.name, name)
      yield Member(path, part.begin + info.offset_data, info.size)
    elif not info.isdir():
      left_out[_kind(info)] += 1
    # tarfile keeps them in this list, and a million of them are a gigabyte.
    vars(tar)['members'] = []
    part.last = end
    info = tar.next()
  _check_end(part, end)


def _check_end(part, end):
  """Raises unless the tar ends where its members do."""
  head = part.read_at(end, tarfile.BLOCKSIZE)
  if not head:
    raise ValueError('it is cut short: the mark of its end is missing')
  if head.strip(b'\0'):
    raise ValueError('what follows is no header')
  filling = part.read_at(end, _LARGEST_FILLING_BYTES)
  if filling.strip(b'\0'):
    raise ValueError('more follows behind the mark of its end')
  if part.size - end > _LARGEST_FILLING_BYTES:
    raise ValueError(
      f'it ends there, {part.size - end:,} bytes before the end of the file'
    )


def _kind(info):
  """Returns a word for a member that is no file."""
  return (
    'link' if info.issym() or info.islnk()
    else 'pipe' if info.isfifo()
    else 'device' if info.isdev()
    else 'member of an unknown kind'
  )  # fmt: skip
