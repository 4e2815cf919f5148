"""A source of the image files in a folder; subfolders are the classes."""

import functools
import hashlib
import os
import pathlib

import numpy as np

from cdm.data import transforms
from cdm.data.source import element, first_names

EXTENSIONS = (
  '.avif', '.bmp', '.gif', '.jfif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm',
  '.tif', '.tiff', '.webp',
)  # fmt: skip


class Folder:
  """Image files of a folder and everything below it, in order of their paths.

  Files and folders whose names start with a dot are left out.
  """

  def __init__(self, path, class_names=None):
    """Lists the files.

    Args:
      path: the folder.
      class_names: which first-level sub-folders are the classes 0, 1, 2, ...
        None: all of them, in the order of `sort_classes`, if there are any;
        give the names where two folders must agree although one lacks a
        class. (): no classes, the sub-folders mean nothing (FFHQ's thousands).

    Raises:
      ValueError: no such folder, no image in it, or images outside the classes.
    """
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
    number = {name: i for i, name in enumerate(self.class_names)}
    for file, folder in zip(self.files, folders, strict=True):
      if folder not in number:
        raise ValueError(
          f'{self.path}/{file} lies in none of the {len(number)} class '
          f'folders {first_names(self.class_names)}. Move it, name its folder '
          f'in class_names, or ignore the folders with class_names=().'
        )
    return np.array([number[folder] for folder in folders], np.int32)

  def __len__(self):
    return len(self.files)

  @functools.cached_property
  def fingerprint(self):
    """Of paths and sizes: reading every byte would take as long as an epoch."""
    digest = hashlib.sha256(repr(self.class_names).encode())
    for file in self.files:
      size = os.stat(os.path.join(self.path, file)).st_size
      digest.update(f'{file}\0{size}\n'.encode(errors='surrogateescape'))
    return f'folder:{digest.hexdigest()[:16]}'

  def file_names(self):
    """-> paths below the folder, in order."""
    return self.files

  def __getitem__(self, i):
    path = os.path.join(self.path, self.files[i])
    try:
      data = pathlib.Path(path).read_bytes()
    except OSError as error:
      raise transforms.BadImage(path, f'cannot be read: {error}') from error
    return element(transforms.decode(data, name=path), self.labels[i])


def sort_classes(names):
  """Returns the names of class folders in the order of their labels.

  Folders that are all called by a number have the order of the numbers, so
  that class 10 follows class 9; any others have the order of their letters.
  """
  if all(name.isdecimal() for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)


def _image_files(root):
  """Yields paths below root, relative to it, with forward slashes."""
  for folder, folders, files in os.walk(root, followlinks=True):
    folders[:] = [f for f in folders if not f.startswith(('.', '__MACOSX'))]
    for file in files:
      if file.lower().endswith(EXTENSIONS) and not file.startswith('.'):
        path = os.path.relpath(os.path.join(folder, file), root)
        yield path.replace(os.sep, '/')
