"""Reads the images of an .npz archive one by one, from where they lie.

The layout is that of [ADM]'s evaluator: `arr_0` is uint8 [N, H, W, 3], and
`arr_1`, where it is there, the labels, int [N] from 0 on. 50,000 images of 256
pixels are 9.8 GB, so they are not held: of an archive that is stored, as
`np.savez` does, each image is read in place; one that is compressed is unpacked
once, into a temporary file without a name, which goes with the process. Nothing
is ever unpickled.
"""

import contextlib
import lzma
import math
import os
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CHUNK_BYTES = 1 << 22
IMAGES, LABELS = 'arr_0', 'arr_1'
_READERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile and NumPy raise at bytes that are no archive. RuntimeError is an
# encrypted member, an unknown compression or too deep a header.
DAMAGE = (
  *(OSError, EOFError, ValueError, RuntimeError, SyntaxError),
  *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
  tokenize.TokenError,
)


class Pictures(NamedTuple):
  """The images of one archive.

  Attributes:
    count: N.
    shape: (H, W, C), C as it is stored.
    labels: int [N], or None.
    read: index -> uint8 [H, W, 3], by any thread.
  """

  count: int
  shape: tuple
  labels: np.ndarray | None
  read: Callable


class _Refused(ValueError):
  """The archive can be read, and holds something else than was expected."""


def open_images(path, *, check_bytes=True):
  """Opens the images of an archive.

  Args:
    path: of the archive. One whose `arr_0` is [N, H, W, 1] becomes RGB by
      repeating the channel.
    check_bytes: whether to read all images once, for the checksum that the
      archive has of them.

  Returns:
    Pictures.

  Raises:
    ValueError: it is damaged, or holds something else.
  """
  with _opened(path) as archive:
    shape, fortran, header = _image_header(path, archive)
    labels = _labels(path, archive, shape[0])
    file, begin = _bytes_of(path, archive, check_bytes)
    begin += header
    if begin + math.prod(shape) > os.fstat(file.fileno()).st_size:
      raise ValueError(f'{IMAGES} is cut off')
    if fortran:  # no image is in one piece
      array = np.memmap(file, np.uint8, 'r', begin, shape, 'F')
      return Pictures(shape[0], shape[1:], labels, lambda i: _rgb(array[i]))

  size = math.prod(shape[1:])

  def read(i):
    place = begin + range(shape[0])[i] * size
    # Unlike a memory map, this is no bus error where the file became shorter.
    data = os.pread(file.fileno(), size, place)
    if len(data) != size:
      raise ValueError(f'{path} has become shorter while it was read.')
    return _rgb(np.frombuffer(data, np.uint8).reshape(shape[1:]))

  return Pictures(shape[0], shape[1:], labels, read)


def count(path):
  """-> number of images, of the header alone. Raises as `open_images` does."""
  with _opened(path) as archive:
    return _image_header(path, archive)[0][0]


def array_names(path):
  """-> names of the arrays in an .npz. Raises ValueError: it is damaged."""
  with _opened(path) as archive:
    return _names(archive)


@contextlib.contextmanager
def _opened(path):
  """Context: gives the archive; damage becomes one sentence."""
  try:
    with zipfile.ZipFile(path) as archive:
      yield archive
  except _Refused:
    raise
  except DAMAGE as error:
    raise ValueError(
      f'{path} cannot be read as an .npz archive ({error}); it may be '
      'truncated, so write it again.'
    ) from error


def _names(archive):
  names = archive.namelist()
  return [name[:-4] for name in names if name.endswith('.npy')]


def _header(archive, name):
  """-> (shape, dtype, whether in Fortran's order, bytes of the header)."""
  with archive.open(f'{name}.npy') as member:
    version = np.lib.format.read_magic(member)
    if version not in _READERS:
      raise ValueError(f'{name} is of the unknown version {version}')
    shape, fortran, dtype = _READERS[version](member)
    begin = member.tell()
  size = archive.getinfo(f'{name}.npy').file_size
  if not dtype.hasobject and size != begin + math.prod(shape) * dtype.itemsize:
    raise ValueError(f'{name} is not as long as its shape {shape} says')
  return shape, dtype, fortran, begin


def _image_header(path, archive):
  """-> (shape, whether in Fortran's order, bytes of the header) of arr_0."""
  names = _names(archive)
  if IMAGES not in names:
    raise _Refused(
      f'{path} has no {IMAGES} but {names}; the pictures are expected there, '
      'uint8 [N, H, W, 3].'
    )
  shape, dtype, fortran, header = _header(archive, IMAGES)
  if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
    raise _Refused(
      f'{IMAGES} of {path} is {dtype} {shape}; expected are uint8 levels '
      '[N, H, W, 3]. Round floats with pixels.to_uint8 first.'
    )
  if min(shape) < 1:
    raise _Refused(f'{IMAGES} of {path} holds no pictures.')
  return shape, fortran, header


def _labels(path, archive, expected):
  """-> int [N], or None of an archive that has none."""
  if LABELS not in _names(archive):
    return None
  shape, dtype, *_ = _header(archive, LABELS)
  told = f'{LABELS} of {path} is {dtype} {shape}'
  if dtype.kind in 'iu' and shape == (expected,):
    with archive.open(f'{LABELS}.npy') as member:
      labels = np.lib.format.read_array(member, allow_pickle=False)
    if labels.min() >= 0:
      return labels
    told += f' with a label of {labels.min()}'
  raise _Refused(
    f'{told}; expected are the labels of its {expected} pictures, '
    f'int [{expected}] from 0 on. Write the archive again, without {LABELS} if '
    'its pictures have no labels.'
  )


def _bytes_of(path, archive, check_bytes):
  """-> (file with the bytes of arr_0 in it, where they begin)."""
  member = archive.getinfo(f'{IMAGES}.npy')
  with archive.open(member) as stream:  # which knows the checksum
    if member.compress_type != zipfile.ZIP_STORED:
      file = tempfile.TemporaryFile()  # noqa: SIM115
      shutil.copyfileobj(stream, file, CHUNK_BYTES)
      file.flush()
      return file, 0
    while check_bytes and stream.read(CHUNK_BYTES):
      pass
  file = open(path, 'rb')  # noqa: SIM115
  # Name and extra field are those of this header: the directory at the end of
  # the archive may have another extra field.
  file.seek(member.header_offset + 26)
  name, extra = struct.unpack('<HH', file.read(4))
  return file, member.header_offset + 30 + name + extra


def _rgb(image):
  return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
