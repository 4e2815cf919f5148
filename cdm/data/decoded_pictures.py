"""Keeps the decoded pixels of a folder's pictures in one mapped file.

To decode a photograph takes fifty times as long as to cut a square out of it.
Decoded once, all photographs stand in one file that every process maps: the
system keeps one copy in memory for all of them, and none if it needs the room.
"""

import hashlib
import os
import pathlib
from typing import NamedTuple

import numpy as np

from cdm.data import folder, folder_index
from cdm.data.files import atomic_files

_VERSION = 1  # of the order of the bytes


class Decoded(NamedTuple):
  """Pictures that were decoded.

  Attributes:
    path: the file of their pixels, one picture after the other.
    names: of the pictures, in this order.
    shapes: (height, width) of each.
  """

  path: str
  names: tuple[str, ...]
  shapes: tuple[tuple[int, int], ...]

  def pictures(self) -> list[np.ndarray]:
    """Returns each picture, uint8 [H, W, 3], mapped and read-only."""
    pixels = np.memmap(self.path, np.uint8, mode='r')
    found, start = [], 0
    for height, width in self.shapes:
      end = start + 3 * height * width
      found.append(pixels[start:end].reshape(height, width, 3))
      start = end
    return found


def decode(path: str) -> Decoded:
  """Decodes the pictures below a folder, or finds what an earlier call wrote.

  The file is kept in the folder of `folder_index.places`, by a hash of the
  names, sizes and times of the pictures; without such a place, in the folder of
  the pictures, where their list is kept too.

  Raises:
    ValueError: the folder has no pictures.
    transforms.BadImage: a picture cannot be read.
    OSError: the file cannot be written.
  """
  source = folder.Folder(path, class_names=())
  place = folder_index.places().elsewhere
  own = pathlib.Path(source.path) / folder_index.FOLDER
  kept = own if place is None else pathlib.Path(place())
  kept.mkdir(parents=True, exist_ok=True)
  digest = hashlib.sha256(f'{_VERSION} {source.fingerprint}'.encode())
  for name in source.files:
    changed = os.stat(os.path.join(source.path, name)).st_mtime_ns
    digest.update(f'\0{changed}'.encode())
  pixels = kept / f'decoded-{digest.hexdigest()[:24]}.pixels'
  shapes = kept / f'{pixels.name}.txt'
  if not shapes.exists():
    _write(source, pixels, shapes)
  lines = shapes.read_text(encoding='utf-8').split()
  sizes = [(int(h), int(w)) for h, w in (line.split('x') for line in lines)]
  return Decoded(str(pixels), source.files, tuple(sizes))


def _write(source, pixels, shapes):
  """Writes the pixels; then the shapes, whose file says that all are there."""
  lines = []
  with atomic_files.write_atomically(pixels) as partial:
    with open(partial, 'wb') as file:
      for i in range(len(source)):
        image = source[i]['image']
        lines.append(f'{image.shape[0]}x{image.shape[1]}')
        file.write(np.ascontiguousarray(image).data)
  atomic_files.write_text_atomically(shapes, '\n'.join(lines) + '\n')
