"""Reads a set of images at a path: a folder, shards, an .npz or one image file.

Each image is decoded when it is read, so that a set takes no memory.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from cdm.data import (
  array_record,
  image_decoder,
  image_notes,
  mixed_folders,
  npz_arrays,
  npz_images,
  numbered_names,
  picture_files,
  record_format,
  transforms,
)
from cdm.data.files import damaged_file, storage_retry
from cdm.data.printable_name import printable


class Images(NamedTuple):
  """The images at a path, read one at a time.

  Attributes:
    path: the folder, archive or image file.
    names: one per image, its path inside the folder without its suffix; None
      for an archive or shards, whose images have no names.
    count: number of images.
    read: maps an index to uint8 [H, W, 3].
  """

  path: pathlib.Path
  names: tuple[str, ...] | None
  count: int
  read: Callable[[int], np.ndarray]


def load_images(
  path: str | os.PathLike,
  *,
  max_value: float | None = None,
  listing: picture_files.Listing | None = None,
) -> Images:
  """Lists the images at a path; each is decoded only when it is read.

  Args:
    path: an image file, a folder of image files (see `picture_files`; ordered
      by path), a folder of shards that `cdm prepare` or `cdm sample` wrote (see
      `record_format.find_folder`), or an .npz whose `arr_0` is uint8 [N, H, W,
      3], the layout of the [ADM] evaluator. Grey images become RGB by repeating
      their channel.
    max_value: the value of white in image files of 16 or more bits; see
      `image_decoder.decode`.
    listing: the picture files of a folder, if the caller has listed them.

  Returns:
    The set of images.

  Raises:
    ValueError: the path does not exist, or holds no such images.
  """
  path = pathlib.Path(path)
  listed = storage_retry.retried(
    lambda: _list(path, max_value, listing), f'Listing {printable(path)}'
  )
  return listed._replace(
    read=lambda i: storage_retry.retried(
      lambda: listed.read(i), f'Reading {name_of(listed, i)}'
    )
  )


def _list(
  path: pathlib.Path,
  max_value: float | None,
  listing: picture_files.Listing | None,
) -> Images:
  decode = functools.partial(_decode, max_value=max_value)
  if path.is_dir():
    if record_format.find_folder(path) is not None:
      return _shards(path)
    if listing is None:
      listing = picture_files.list_pictures(path)
    return _folder(path, decode, listing)
  reason = picture_files.why_not_a_file(path)
  if reason is not None:
    raise ValueError(
      f'{printable(path)} {reason}; give a folder, an .npz or a picture file.'
    )
  if path.suffix.lower() == '.npz':
    return _archive(path)
  if not picture_files.has_suffix(path):
    raise ValueError(
      f'{printable(path)} is neither a folder, an .npz nor a '
      f'picture file ({", ".join(picture_files.SUFFIXES)}).'
    )
  return Images(path, (path.stem,), 1, lambda i: decode(path))


def holds_images(path: str | os.PathLike) -> bool:
  """Whether an .npz has an array of images, among any others."""
  return npz_images.IMAGES in npz_arrays.array_names(path)


def fingerprint_of(
  path: str | os.PathLike, listing: picture_files.Listing | None = None
) -> str:
  """Returns a text that changes when the files at a path change.

  It depends on the names, sizes and modification times of the files, not on
  their bytes.

  Args:
    path, listing: see `load_images`.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    return _file_stamp(path, path.parent)
  shards = record_format.find_folder(path)
  if shards is not None:
    path = shards
    index = record_format.read_index(shards)
    listed = [] if index is None else [s['file'] for s in index['shards']]
    files = [record_format.INDEX, *listed]
  else:
    files = (listing or picture_files.list_pictures(path)).files
  stamps = ''.join(_file_stamp(path / file, path) for file in files)
  return hashlib.sha256(stamps.encode(errors='surrogateescape')).hexdigest()


def _file_stamp(file, folder):
  state = file.stat()
  name = file.relative_to(folder)
  return f'{name}\0{state.st_size}\0{state.st_mtime_ns}\n'


def suffixes_of(
  path: str | os.PathLike, listing: picture_files.Listing | None = None
) -> list[str]:
  """Returns the suffixes of the files at a path, sorted and in lower case.

  Args:
    path, listing: see `load_images`.
  """
  path = pathlib.Path(path)
  files = [path]
  if path.is_dir():
    if record_format.find_folder(path) is not None:
      return ['.array_record']
    files = (listing or picture_files.list_pictures(path)).files
  return sorted({pathlib.PurePath(file).suffix.lower() for file in files})


def stream(
  images: Images, order: Iterable[int] | None = None, *, batch_size: int = 16
) -> Iterator[np.ndarray]:
  """Yields the images of a set in batches, uint8 [N, H, W, 3].

  Args:
    images: the set; its images must have equal H and W.
    order: indices to read, by default all of them in order.
    batch_size: N; the last batch may be smaller.

  Raises:
    ValueError: the images differ in size; names the first that differs.
  """
  order = list(range(images.count) if order is None else order)
  first = None
  for start in range(0, len(order), batch_size):
    batch = []
    for i in order[start : start + batch_size]:
      image = images.read(i)
      first = first or (i, image.shape, size_of(image))
      if image.shape != first[1]:
        raise ValueError(
          f'{name_of(images, i)} has {size_of(image)} pixels but '
          f'{name_of(images, first[0])} has {first[2]}; evaluate '
          'images of one size.'
        )
      batch.append(image)
    yield np.stack(batch)


def _folder(path, decode, listing):
  left_out = listing.left_out_text()
  if not listing.files:
    raise ValueError(
      f'{printable(path)} holds no picture files '
      f'({", ".join(picture_files.SUFFIXES)}{left_out and "; "}{left_out}); '
      'give the folder that they are in.'
    )
  picture_files.say_left_out(str(path), left_out)
  files = listing.files
  mixed_folders.check(str(path), files, classes=False)
  names = tuple(os.path.splitext(file)[0] for file in files)
  if numbered_names.are_thousands(files):
    # The same image in a folder without subfolders is its partner.
    names = tuple(os.path.basename(name) for name in names)
  return Images(path, names, len(files), lambda i: decode(path / files[i]))


def _shards(path):
  source = array_record.ArrayRecords(path)

  def read(i):
    try:
      return source[i]['image']
    except transforms.BadImage as error:
      raise damaged_file.reworded(error, f'{error}.') from error

  return Images(path, None, len(source), read)


def check_names(images: Images) -> None:
  """Checks that images can be paired by name without suffix.

  Raises:
    ValueError: two images have the same name; the message gives both.
  """
  if images.names is None or len(set(images.names)) == images.count:
    return
  first = {}
  for file in picture_files.list_pictures(images.path).files:
    name = os.path.splitext(file)[0]
    if name in first:
      raise ValueError(
        f'{printable(images.path)} holds both {printable(first[name])} and '
        f'{printable(file)}; images are paired by name without suffix, so '
        f'keep one {printable(name)}.'
      )
    first[name] = file


def _archive(path):
  archive = npz_images.open_images(path)
  return Images(path, None, archive.count, archive.read)


def _decode(path, *, max_value):
  try:
    decoded = image_decoder.read_file(path, max_value=max_value)
  except transforms.BadImage as error:
    raise damaged_file.reworded(
      error, f'{error}. Write the image again, or remove it and its partner.'
    ) from error
  image_notes.count(decoded.notes)
  return decoded.pixels


def name_of(images: Images, i: int) -> str:
  """Returns how an error message names image i of a set."""
  if images.names is None:
    return f'image {i} of {images.path}'
  return f'{images.names[i]!r} of {images.path}'


def size_of(image: np.ndarray) -> str:
  """Returns 'WxH' of an image [H, W, ...], for an error message."""
  return f'{image.shape[1]}x{image.shape[0]}'
