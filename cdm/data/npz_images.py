"""Reads the pictures of an .npz one by one.

Those of 50,000 samples at 256 pixels are 9.8 GB, so they are not held: of an
archive that is stored, as `np.savez` does, each picture is read where it lies;
one that is compressed is unpacked once, into a temporary file without a name,
which goes with the process. On opening all bytes are read once, for the
checksum that the archive has of them.
"""

import math
import os
import shutil
import tempfile
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
DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


class Pictures(NamedTuple):
  """Of one archive.

  Attributes:
    count: N.
    read: index -> uint8 [H, W, 3], by any thread.
  """

  count: int
  read: Callable


def opened(path):
  """Opens the pictures of an .npz of the [ADM] evaluator's layout.

  Args:
    path: of the archive. `arr_0` is uint8 [N, H, W, 3], or [N, H, W, 1], which
      becomes RGB by repeating the channel; `arr_1`, where it is there, the
      labels, int [N] from 0 on.

  Returns:
    Pictures.

  Raises:
    ValueError: it is damaged, or holds something else.
  """
  try:
    with zipfile.ZipFile(path) as held:
      names = [name.removesuffix('.npy') for name in held.namelist()]
      if IMAGES not in names:
        raise _Refused(
          f'{path} has no {IMAGES} but {names}; the pictures are expected '
          'there, uint8 [N, H, W, 3].'
        )
      shape = _check_images(path, *_header(held, IMAGES)[:2])
      if LABELS in names:
        _check_labels(path, held, shape[0])
      return Pictures(shape[0], _reader(path, held, shape))
  except _Refused as refused:
    raise ValueError(str(refused)) from None
  except DAMAGE as error:
    raise ValueError(
      f'{path} cannot be read as an .npz archive ({error}); it may be '
      'truncated, so write it again.'
    ) from error


class _Refused(Exception):
  """It can be read, and is not what was expected."""


def _header(held, name):
  """-> (shape, dtype, whether in Fortran's order, length of the header)."""
  with held.open(f'{name}.npy') as member:
    version = np.lib.format.read_magic(member)
    if version not in _READERS:
      raise ValueError(f'{name} is of the unknown version {version}')
    shape, fortran, dtype = _READERS[version](member)
    return shape, dtype, fortran, member.tell()


def _check_images(path, shape, dtype):
  if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
    raise _Refused(
      f'{IMAGES} of {path} is {dtype} {shape}; expected are uint8 levels '
      '[N, H, W, 3]. Round floats with images.to_uint8 first.'
    )
  if 0 in shape:
    raise _Refused(f'{IMAGES} of {path} holds no pictures.')
  return shape


def _check_labels(path, held, count):
  shape, dtype, *_ = _header(held, LABELS)
  told = f'{LABELS} of {path} is {dtype} {shape}'
  if dtype.kind in 'iu' and shape == (count,):
    with held.open(f'{LABELS}.npy') as member:
      labels = np.lib.format.read_array(member, allow_pickle=False)
    if labels.min() >= 0:
      return
    told += f' with a label of {labels.min()}'
  raise _Refused(
    f'{told}; expected are the labels of its {count} pictures, int [{count}] '
    'from 0 on. Write the archive again, or leave it out.'
  )


def _reader(path, held, shape):
  """-> read; goes through all bytes once."""
  _, _, fortran, header = _header(held, IMAGES)
  member = held.getinfo(f'{IMAGES}.npy')
  size = math.prod(shape[1:])
  if member.file_size != header + shape[0] * size:
    raise ValueError(f'{IMAGES} is not as long as its shape {shape} says')
  if fortran:  # no picture is in one piece
    with held.open(member) as stream:
      array = np.lib.format.read_array(stream, allow_pickle=False)
    return lambda i: _rgb(array[i])
  stored = member.compress_type == zipfile.ZIP_STORED
  file = open(path, 'rb') if stored else tempfile.TemporaryFile()  # noqa: SIM115
  with held.open(member) as stream:  # which knows the checksum
    if stored:
      while stream.read(CHUNK_BYTES):
        pass
    else:
      shutil.copyfileobj(stream, file, CHUNK_BYTES)
      file.flush()
  begin = header + (_begin_of(file, member) if stored else 0)

  def read(i):
    data = os.pread(file.fileno(), size, begin + i * size)
    if len(data) != size:
      raise ValueError(f'{path} has become shorter while it was read.')
    return _rgb(np.frombuffer(data, np.uint8).reshape(shape[1:]))

  return read


def _begin_of(file, member):
  """-> where a stored member's bytes begin: after its name and extra field."""
  file.seek(member.header_offset + 26)
  name, extra = np.frombuffer(file.read(4), '<u2')
  return member.header_offset + 30 + int(name) + int(extra)


def _rgb(image):
  return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
