"""Sets of pictures on disk: a folder, an .npz archive, a single picture.

They are decoded when they are read, so that a set takes no memory.
"""

import hashlib
import itertools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cdm.data import npz_images, transforms

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class Images(NamedTuple):
  """Pictures at a path, read one at a time.

  Attributes:
    path: where they are.
    names: one per picture, paths inside a folder without their suffix; None
      for an archive, which has none.
    count: how many.
    read: index -> uint8 [H, W, 3].
  """

  path: pathlib.Path
  names: tuple | None
  count: int
  read: Callable


def load_images(path):
  """Finds the pictures at a path; a folder's are decoded when they are read.

  Args:
    path: a picture, a folder of pictures (subfolders included; ordered by
      name), or an .npz whose `arr_0` is uint8 [N, H, W, 3], the layout of the
      [ADM] evaluator. Grey pictures become RGB by repeating their channel.

  Returns:
    Images.

  Raises:
    ValueError: nothing there, or something that holds no such pictures.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    return _folder(path)
  if not path.is_file():
    raise ValueError(f'{path} does not exist; give a folder, .npz or picture.')
  if path.suffix.lower() == '.npz':
    return _archive(path)
  if path.suffix.lower() not in SUFFIXES:
    raise ValueError(
      f'{path} is neither a folder, an .npz nor a picture '
      f'({", ".join(SUFFIXES)}).'
    )
  return Images(path, (path.stem,), 1, lambda i: _decode(path))


def holds_images(path):
  """Whether an .npz has pictures in it, whatever else it has."""
  return npz_images.IMAGES in npz_images.array_names(path)


def fingerprint_of(path):
  """-> JSON-able; another one when the pictures at a path have changed."""
  path = pathlib.Path(path)
  if not path.is_dir():
    return _file_stamp(path, path.parent)
  told = ''.join(_file_stamp(file, path) for file in _files(path))
  return hashlib.sha256(told.encode(errors='surrogateescape')).hexdigest()


def _file_stamp(file, folder):
  state = file.stat()
  name = file.relative_to(folder)
  return f'{name}\0{state.st_size}\0{state.st_mtime_ns}\n'


def stream(pictures, order=None, *, batch_size=16):
  """Yields uint8 [N, H, W, 3] of equal H and W.

  Args:
    pictures: `Images`.
    order: indices to read, default all of them in order.
    batch_size: N, but for the last batch.

  Raises:
    ValueError: pictures of different sizes, naming the first that differs.
  """
  order = list(range(pictures.count) if order is None else order)
  first = None
  for start in range(0, len(order), batch_size):
    batch = []
    for i in order[start : start + batch_size]:
      image = pictures.read(i)
      first = first or (i, image.shape)
      if image.shape != first[1]:
        raise ValueError(
          f'{name_of(pictures, i)} has {size_of(image)} pixels but '
          f'{name_of(pictures, first[0])} has {size_of(batch[0])}; evaluate '
          'pictures of one size.'
        )
      batch.append(image)
    yield np.stack(batch)


def _files(path):
  """-> the pictures in a folder and below it, by name."""
  return sorted(
    file
    for file in path.rglob('*')
    if file.suffix.lower() in SUFFIXES and not file.name.startswith('.')
  )


def _folder(path):
  files = _files(path)
  if not files:
    raise ValueError(
      f'{path} holds no pictures ({", ".join(SUFFIXES)}); give the folder that '
      'they are in.'
    )
  names = tuple(
    file.relative_to(path).with_suffix('').as_posix() for file in files
  )
  for (a, b), name in zip(itertools.pairwise(files), names[1:], strict=True):
    if a.with_suffix('') == b.with_suffix(''):
      raise ValueError(
        f'{path} holds both {a.name} and {b.name}; pictures are paired by '
        f'name without suffix, so keep one {name}.'
      )
  return Images(path, names, len(files), lambda i: _decode(files[i]))


def _archive(path):
  found = npz_images.open_images(path)
  return Images(path, None, found.count, found.read)


def _decode(path):
  try:
    return transforms.decode(path.read_bytes(), name=str(path))
  except transforms.BadImage as error:
    raise ValueError(
      f'{error}. Write the picture again, or remove it and its partner.'
    ) from error


def name_of(pictures, i):
  if pictures.names is None:
    return f'picture {i} of {pictures.path}'
  return f'{pictures.names[i]!r} of {pictures.path}'


def size_of(image):
  return f'{image.shape[0]}x{image.shape[1]}'
