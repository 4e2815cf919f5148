"""Reads a folder of image files as a source; its subfolders are the classes."""

import functools
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from cdm.data import image_decoder
from cdm.data.source import Element, element, first_names

EXTENSIONS = (
  '.avif', '.bmp', '.gif', '.jfif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm',
  '.tif', '.tiff', '.webp',
)  # fmt: skip


class Folder:
  """A source of the image files in a folder and below it, ordered by path.

  Files and folders whose names start with a dot are left out.

  Attributes:
    path: the folder.
    files: paths of the image files, relative to the folder.
    class_names: the name of each label; () if there are none.
    num_classes: number of labels.
    labels: int32, one per file.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    class_names: Iterable[str] | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
  ):
    """Lists the image files.

    Args:
      path: the folder.
      class_names: the first-level subfolders that are the classes 0, 1, 2, ...
        None takes all of them, in the order of `sort_classes`. Give the names
        if two folders must have the same labels although one lacks a class. An
        empty tuple means that the subfolders are not classes (FFHQ's
        thousands).
      max_pixels: an image of more pixels counts as unreadable.
      max_value: the value of white in images of 16 or more bits; see
        `image_decoder.decode`.

    Raises:
      ValueError: the folder does not exist or has no images, or an image is
        outside of the class folders.
    """
    self._limits = image_decoder.check_limits(max_pixels, max_value)
    self.path = os.path.expanduser(path)
    if not os.path.isdir(self.path):
      raise ValueError(f'{self.path!r} is not a folder of images.')
    self.files = tuple(sorted(_image_files(self.path)))
    if not self.files:
      raise ValueError(
        f'The folder {self.path!r} has no images: no file below it ends in one '
        f'of {" ".join(EXTENSIONS)}.'
      )
    folders = [f.split('/', 1)[0] if '/' in f else None for f in self.files]
    if class_names is None:
      class_names = sort_classes({f for f in folders if f is not None})
    self.class_names = tuple(class_names)
    self.num_classes = len(self.class_names)
    self.labels = self._label(folders)

  def _label(self, folders):
    if not self.class_names:
      return np.zeros(len(folders), np.int32)
    label_of = {name: i for i, name in enumerate(self.class_names)}
    for file, folder in zip(self.files, folders, strict=True):
      if folder not in label_of:
        raise ValueError(
          f'{self.path}/{file} is in none of the {len(label_of)} class '
          f'folders {first_names(self.class_names)}. Move it, name its folder '
          f'in class_names, or ignore the folders with class_names=().'
        )
    return np.array([label_of[folder] for folder in folders], np.int32)

  def __len__(self) -> int:
    return len(self.files)

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of the class names and of the paths and sizes of the files.

    Reading every byte would take as long as an epoch.
    """
    digest = hashlib.sha256(repr(self.class_names).encode())
    if self._limits.get('max_value') is not None:
      digest.update(f'max_value {self._limits["max_value"]}\0'.encode())
    for file in self.files:
      size = os.stat(os.path.join(self.path, file)).st_size
      digest.update(f'{file}\0{size}\n'.encode(errors='surrogateescape'))
    return f'folder:{digest.hexdigest()[:16]}'

  def file_names(self) -> tuple[str, ...]:
    """Returns the path of each image relative to the folder."""
    return self.files

  def __getitem__(self, i: int) -> Element:
    path = os.path.join(self.path, self.files[i])
    decoded = image_decoder.read_file(path, **self._limits)
    return element(decoded.pixels, self.labels[i], decoded.notes)


def sort_classes(names: Collection[str]) -> list[str]:
  """Returns the names of class folders in the order of their labels.

  If all names are numbers, they are sorted as numbers, so that class 10 follows
  class 9. If not, they are sorted as text.
  """
  if all(name.isdecimal() for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)


def _image_files(root: str) -> Iterator[str]:
  """Yields the paths of image files relative to root, with forward slashes."""
  for folder, folders, files in os.walk(root, followlinks=True):
    folders[:] = [f for f in folders if not f.startswith(('.', '__MACOSX'))]
    for file in files:
      if file.lower().endswith(EXTENSIONS) and not file.startswith('.'):
        path = os.path.relpath(os.path.join(folder, file), root)
        yield path.replace(os.sep, '/')
