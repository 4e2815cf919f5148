"""Reads arrays from .npz archives that may be damaged or hostile.

Nothing is unpickled, and nothing is allocated because a number in the file asks
for it: an array is read only if its header, the archive's directory and the
bytes that are there agree.
"""

import contextlib
import errno
import io
import math
import os
import struct
import tokenize
import zipfile
from collections.abc import Collection, Generator
from typing import NamedTuple

import numpy as np

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file

# A compressed array may be larger than its archive, but not larger than this:
# the statistics of 5,700 features, for example.
MOST_BYTES = 1 << 28
_READERS = {
  (1, 0): (struct.Struct('<H'), np.lib.format.read_array_header_1_0),
  (2, 0): (struct.Struct('<I'), np.lib.format.read_array_header_2_0),
}
_MOST_HEADER_BYTES = 10_000  # NumPy's own limit
_LOCAL = struct.Struct('<26xHH')  # a member's header: lengths of name, extra
_MOST_LZMA_BYTES = 1 << 26  # of the window that a stream asks for
# What the operating system says of the file itself, not of its contents.
_NOT_DAMAGE = {
  *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
  *(errno.ENOSPC, errno.EDQUOT, errno.ELOOP),
}


class UnexpectedContent(ValueError):
  """The archive can be read, but does not hold what was expected."""


class Header(NamedTuple):
  """What an archive says of one of its arrays.

  Attributes:
    shape: of the array.
    dtype: of its numbers.
    fortran: whether they are stored in Fortran order.
    begin: bytes of the array's own header, after which the numbers begin.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  fortran: bool
  begin: int


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Generator[zipfile.ZipFile, None, None]:
  """Context manager that yields the archive.

  Raises:
    DamagedFile: anything inside found that the archive is damaged.
    OSError: the operating system refuses the file.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      yield archive
  except (DamagedFile, UnexpectedContent, MemoryError):
    raise
  # zipfile, its decompressors and NumPy raise nearly anything on damaged bytes.
  except Exception as error:
    if not_of_the_file(error):
      raise
    if isinstance(error, OSError) and error.errno in _NOT_DAMAGE:
      raise
    text = error.args[0] if isinstance(error, tokenize.TokenError) else error
    reason = str(text).rstrip('.') or type(error).__name__
    raise DamagedFile(
      f'{path} cannot be read as an .npz archive ({reason}); it may be '
      'truncated, so write it again.'
    ) from error


def names(archive: zipfile.ZipFile) -> list[str]:
  """Returns the names of the arrays in an archive."""
  listed = archive.namelist()
  return [name[:-4] for name in listed if name.endswith('.npy')]


def read_header(archive: zipfile.ZipFile, name: str) -> Header:
  """Returns the header of an array, after comparing it with the directory.

  Raises:
    ValueError: the archive is damaged, see `opened`.
  """
  member = _member(archive, name)
  with archive.open(member) as stream:
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
      raise ValueError(f'{name} is of the unknown version {version}')
    length, parse = _READERS[version]
    head = stream.read(length.size)
    (size,) = length.unpack(head)
    if size > _MOST_HEADER_BYTES:
      raise ValueError(f'the header of {name} says that it has {size} bytes')
    text = stream.read(size)
    try:
      shape, fortran, dtype = parse(io.BytesIO(head + text))
    except MemoryError:  # Python's parser says so of an expression too deep.
      raise ValueError(f'the header of {name} is nested too deeply') from None
    begin = stream.tell()
  if min(shape, default=0) < 0:
    raise ValueError(f'{name} has the shape {shape}')
  promised = begin + math.prod(shape) * dtype.itemsize
  if not dtype.hasobject and member.file_size != promised:
    raise ValueError(f'{name} is not as long as its shape {shape} says')
  return Header(shape, dtype, fortran, begin)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
  """Returns an array of numbers or texts, its checksum verified.

  Raises:
    ValueError: the archive is damaged, see `opened`, or the array holds Python
      objects or is larger than what is there could say.
  """
  shape, dtype, fortran, begin = read_header(archive, name)
  if dtype.hasobject:
    raise ValueError(f'{name} holds Python objects')
  member = _member(archive, name)
  assert archive.fp is not None  # it is open
  there = max(os.fstat(archive.fp.fileno()).st_size, MOST_BYTES)
  if member.file_size > there:
    raise ValueError(f'{name} says that it has {member.file_size:,} bytes')
  with archive.open(member) as stream:
    data = stream.read()  # to the end, which verifies the checksum
  array = np.frombuffer(data, dtype, offset=begin)
  return array.reshape(shape, order='F' if fortran else 'C')


def read(
  path: str | os.PathLike, leave_out: Collection[str] = ()
) -> dict[str, np.ndarray]:
  """Reads all arrays of an archive, read-only.

  Args:
    path: the archive.
    leave_out: names of arrays that are not read.

  Raises:
    DamagedFile: the archive is damaged, or holds Python objects.
  """
  with opened(path) as archive:
    wanted = [name for name in names(archive) if name not in leave_out]
    return {name: read_array(archive, name) for name in wanted}


def array_names(path: str | os.PathLike) -> list[str]:
  """Returns the names of the arrays in an .npz.

  Raises:
    DamagedFile: the archive is damaged.
  """
  with opened(path) as archive:
    return names(archive)


def data_offset(archive: zipfile.ZipFile, name: str) -> int:
  """Returns where in the file the stored bytes of an array's member begin."""
  return _data_offset(archive, _member(archive, name))


def _data_offset(archive, member):
  file = archive.fp
  # The lengths of name and extra field must come from this local header: the
  # directory at the end of the archive may have another extra field.
  file.seek(member.header_offset)
  lengths = _LOCAL.unpack(file.read(_LOCAL.size))
  return member.header_offset + _LOCAL.size + sum(lengths)


def _member(archive, name):
  """Returns a member whose bytes can be read safely."""
  member = archive.getinfo(f'{name}.npy')
  if member.flag_bits & 1:
    raise ValueError(f'{name}.npy is encrypted')
  # zipfile asks the file for this number of bytes at once.
  there = os.fstat(archive.fp.fileno()).st_size
  if member.compress_size > there - member.header_offset:
    raise ValueError(f'{name}.npy is cut off')
  if member.compress_type == zipfile.ZIP_LZMA:
    # 2 bytes version, 2 bytes length, 1 byte of three settings, the window.
    archive.fp.seek(_data_offset(archive, member) + 5)
    (window,) = struct.unpack('<I', archive.fp.read(4))
    if window > _MOST_LZMA_BYTES:
      raise ValueError(f'{name}.npy asks for {window:,} bytes to be unpacked')
  return member
