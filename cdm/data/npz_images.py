"""Reads single images from an .npz archive without loading the whole array.

The layout is that of [ADM]'s evaluator: `arr_0` is uint8 [N, H, W, 3], and the
optional `arr_1` holds the labels, int [N] from 0 on. 50,000 images of 256
pixels are 9.8 GB, so they are not kept in memory. In an uncompressed archive,
such as `np.savez` writes, each image is read in place. A compressed archive is
unpacked once, into an unnamed temporary file that disappears with the process.
Nothing is ever unpickled.
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
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

CHUNK_BYTES = 1 << 22
IMAGES, LABELS = 'arr_0', 'arr_1'
_READERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
# The exceptions of zipfile and NumPy for bytes that are not an archive.
# RuntimeError means an encrypted member, an unknown compression or a header
# that is nested too deeply.
DAMAGE = (
  *(OSError, EOFError, ValueError, RuntimeError, SyntaxError),
  *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
  tokenize.TokenError,
)


class ArchiveImages(NamedTuple):
  """The images of one archive, read one at a time.

  Attributes:
    count: N, the number of images.
    shape: (H, W, C) of each, where C is the number of channels stored, 1 or 3.
    labels: int [N], or None if the archive has none.
    read: maps an index to uint8 [H, W, 3]; any thread may call it.
  """

  count: int
  shape: tuple[int, ...]
  labels: np.ndarray | None
  read: Callable[[int], np.ndarray]


class _UnexpectedContent(ValueError):
  """The archive can be read, but does not hold what was expected."""


def open_images(
  path: str | os.PathLike, *, check_bytes: bool = True
) -> ArchiveImages:
  """Opens the images of an archive.

  Args:
    path: the archive. If its `arr_0` is [N, H, W, 1], the images become RGB by
      repeating the channel.
    check_bytes: whether to read all images once, to verify the checksum that
      the archive stores. A compressed archive is always verified.

  Returns:
    The images, which are read from the open file when they are asked for.

  Raises:
    ValueError: the archive is damaged, or does not hold images in this layout.
  """
  with _opened(path) as archive:
    shape, fortran, header = _image_header(path, archive)
    labels = _labels(path, archive, shape[0])
    file, begin = _open_image_bytes(path, archive, check_bytes)
    begin += header
    if begin + math.prod(shape) > os.fstat(file.fileno()).st_size:
      raise ValueError(f'{IMAGES} is cut off')
    if fortran:  # In Fortran order, the bytes of one image are not contiguous.
      array = np.memmap(file, np.uint8, 'r', begin, shape, 'F')
      return ArchiveImages(
        shape[0], shape[1:], labels, lambda i: _rgb(array[i])
      )

  size = math.prod(shape[1:])

  def read(i):
    offset = begin + range(shape[0])[i] * size
    # A memory map would end the process with a bus error if the file had become
    # shorter; pread returns fewer bytes.
    data = os.pread(file.fileno(), size, offset)
    if len(data) != size:
      raise ValueError(f'{path} has become shorter while it was read.')
    return _rgb(np.frombuffer(data, np.uint8).reshape(shape[1:]))

  return ArchiveImages(shape[0], shape[1:], labels, read)


def count(path: str | os.PathLike) -> int:
  """Returns the number of images, which is read from the header alone.

  Raises:
    ValueError: as `open_images` does.
  """
  with _opened(path) as archive:
    return _image_header(path, archive)[0][0]


def array_names(path: str | os.PathLike) -> list[str]:
  """Returns the names of the arrays in an .npz.

  Raises:
    ValueError: the archive is damaged.
  """
  with _opened(path) as archive:
    return _names(archive)


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Generator[zipfile.ZipFile, None, None]:
  """Context manager that yields the archive; damage becomes a ValueError."""
  try:
    with zipfile.ZipFile(path) as archive:
      yield archive
  except _UnexpectedContent:
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
  """Returns (shape, dtype, whether in Fortran order, bytes of the header)."""
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
  """Returns arr_0's (shape, whether in Fortran order, bytes of the header)."""
  names = _names(archive)
  if IMAGES not in names:
    raise _UnexpectedContent(
      f'{path} has the arrays {names} but no {IMAGES}; the images are expected '
      'there, uint8 [N, H, W, 3].'
    )
  shape, dtype, fortran, header = _header(archive, IMAGES)
  if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
    raise _UnexpectedContent(
      f'{IMAGES} of {path} is {dtype} {shape}; uint8 [N, H, W, 3] was '
      'expected. Round floats with pixels.to_uint8 first.'
    )
  if min(shape) < 1:
    raise _UnexpectedContent(f'{IMAGES} of {path} holds no images.')
  return shape, fortran, header


def _labels(path, archive, expected):
  """Returns the labels, int [N], or None if the archive has none."""
  if LABELS not in _names(archive):
    return None
  shape, dtype, *_ = _header(archive, LABELS)
  problem = f'{LABELS} of {path} is {dtype} {shape}'
  if dtype.kind in 'iu' and shape == (expected,):
    with archive.open(f'{LABELS}.npy') as member:
      labels = np.lib.format.read_array(member, allow_pickle=False)
    if labels.min() >= 0:
      return labels
    problem += f' with a label of {labels.min()}'
  raise _UnexpectedContent(
    f'{problem}; the labels of its {expected} images were expected, '
    f'int [{expected}] from 0 on. Write the archive again, without {LABELS} if '
    'its images have no labels.'
  )


def _open_image_bytes(path, archive, check_bytes):
  """Returns (open file, offset in it where arr_0 starts with its header)."""
  member = archive.getinfo(f'{IMAGES}.npy')
  with archive.open(member) as stream:  # Reading it verifies the checksum.
    if member.compress_type != zipfile.ZIP_STORED:
      file = tempfile.TemporaryFile()  # noqa: SIM115
      shutil.copyfileobj(stream, file, CHUNK_BYTES)
      file.flush()
      return file, 0
    while check_bytes and stream.read(CHUNK_BYTES):
      pass
  file = open(path, 'rb')  # noqa: SIM115
  # The lengths of name and extra field must come from this local header: the
  # directory at the end of the archive may have another extra field.
  file.seek(member.header_offset + 26)
  name, extra = struct.unpack('<HH', file.read(4))
  return file, member.header_offset + 30 + name + extra


def _rgb(image):
  return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
