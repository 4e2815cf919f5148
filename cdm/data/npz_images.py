"""Reads single images from an .npz archive without loading the whole array.

The layout is that of [ADM]'s evaluator: `arr_0` is uint8 [N, H, W, 3], and the
optional `arr_1` holds the labels, int [N] from 0 on. 50,000 images of 256
pixels are 9.8 GB, so they are not kept in memory. In an uncompressed archive,
such as `np.savez` writes, each image is read in place. A compressed archive is
unpacked once, into an unnamed temporary file that disappears with the process.
Nothing is ever unpickled.
"""

import math
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable
from typing import IO, NamedTuple

import numpy as np

from cdm.data import npz_arrays
from cdm.data.files.damaged_file import DamagedFile

CHUNK_BYTES = 1 << 22
IMAGES, LABELS = 'arr_0', 'arr_1'


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


def open_images(
  path: str | os.PathLike, *, check_bytes: bool = True
) -> ArchiveImages:
  """Opens the images of an archive.

  Args:
    path: the archive. If its `arr_0` is [N, H, W, 1], the images become RGB by
      repeating the channel.
    check_bytes: whether to read all images once, to verify the checksum that
      the archive stores; False where that has been done. A compressed archive
      is always verified.

  Returns:
    The images, which are read from the open file when they are asked for.

  Raises:
    damaged_file.DamagedFile: the archive is damaged.
    ValueError: it does not hold images in this layout.
  """
  with npz_arrays.opened(path) as archive:
    shape, _, fortran, header = _image_header(path, archive)
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
  read_at = _reader_at(file, size)

  def read(i):
    offset = begin + range(shape[0])[i] * size
    # A memory map would end the process with a bus error if the file had become
    # shorter; pread returns fewer bytes.
    data = read_at(offset)
    if len(data) != size:
      raise DamagedFile(f'{path} has become shorter while it was read.')
    return _rgb(np.frombuffer(data, np.uint8).reshape(shape[1:]))

  return ArchiveImages(shape[0], shape[1:], labels, read)


def _reader_at(file, size):
  """Returns what reads `size` bytes at an offset, in any thread."""
  if hasattr(os, 'pread'):
    return lambda offset: os.pread(file.fileno(), size, offset)
  lock = threading.Lock()  # Windows: one thread at a time moves the position.

  def read_at(offset):
    with lock:
      file.seek(offset)
      return file.read(size)

  return read_at


def count(path: str | os.PathLike) -> int:
  """Returns the number of images, which is read from the header alone.

  Raises:
    ValueError: as `open_images` does.
  """
  with npz_arrays.opened(path) as archive:
    return _image_header(path, archive).shape[0]


def _image_header(path, archive):
  """Returns the header of arr_0, which holds images."""
  names = npz_arrays.names(archive)
  if IMAGES not in names:
    raise npz_arrays.UnexpectedContent(
      f'{path} has the arrays {names} but no {IMAGES}; the images are expected '
      'there, uint8 [N, H, W, 3].'
    )
  header = npz_arrays.read_header(archive, IMAGES)
  shape, dtype = header.shape, header.dtype
  if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
    raise npz_arrays.UnexpectedContent(
      f'{IMAGES} of {path} is {dtype} {shape}; uint8 [N, H, W, 3] was '
      'expected. Round floats with pixels.to_uint8 first.'
    )
  if min(shape) < 1:
    raise npz_arrays.UnexpectedContent(f'{IMAGES} of {path} holds no images.')
  return header


def _labels(path, archive, expected):
  """Returns the labels, int [N], or None if the archive has none."""
  if LABELS not in npz_arrays.names(archive):
    return None
  shape, dtype, *_ = npz_arrays.read_header(archive, LABELS)
  problem = f'{LABELS} of {path} is {dtype} {shape}'
  if dtype.kind in 'iu' and shape == (expected,):
    labels = npz_arrays.read_array(archive, LABELS)
    if labels.min() >= 0:
      return labels
    problem += f' with a label of {labels.min()}'
  raise npz_arrays.UnexpectedContent(
    f'{problem}; the labels of its {expected} images were expected, '
    f'int [{expected}] from 0 on. Write the archive again, without {LABELS} if '
    'its images have no labels.'
  )


def _open_image_bytes(path, archive, check_bytes) -> tuple[IO[bytes], int]:
  """Returns (open file, offset in it where arr_0 starts with its header)."""
  member = archive.getinfo(f'{IMAGES}.npy')
  with archive.open(member) as stream:  # Reading it verifies the checksum.
    if member.compress_type != zipfile.ZIP_STORED:
      _check_space(path, member.file_size)
      file = tempfile.TemporaryFile()  # noqa: SIM115
      shutil.copyfileobj(stream, file, CHUNK_BYTES)
      file.flush()
      return file, 0
    while check_bytes and stream.read(CHUNK_BYTES):
      pass
  return open(path, 'rb'), npz_arrays.data_offset(archive, IMAGES)


def _check_space(path, size):
  """Refuses to unpack more than there is room for, before filling the disk."""
  folder = tempfile.gettempdir()
  free = shutil.disk_usage(folder).free
  if size > free:
    raise npz_arrays.UnexpectedContent(
      f'{path} is compressed, and unpacking it takes {size:,} bytes of the '
      f'{free:,} free in {folder}. Write it uncompressed, with np.savez, or '
      'set TMPDIR to a folder with more space.'
    )


def _rgb(image):
  return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
