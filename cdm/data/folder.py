"""Reads a folder of image files as a source; its subfolders are the classes."""

import functools
import hashlib
import os
from collections.abc import Collection, Iterable

import numpy as np

from cdm.data import (
  class_labels,
  folder_index,
  image_decoder,
  label_file,
  mixed_folders,
  numbered_names,
  picture_files,
  picture_order,
)
from cdm.data.printable_name import printable
from cdm.data.source import Element, element, first_names

_NAME_IT = 'Move it, or name its folder in class_names'


class Folder:
  """A source of the image files in a folder and below it.

  What counts as an image file, and what is left out, see `picture_files`.

  Attributes:
    path: the folder.
    files: paths of the image files, relative to the folder, in their order.
    order: what decides that order, see `picture_order`.
    left_out: a text about what else lies in the folder; '' for nothing.
    class_names: the name of each label; () if there are none.
    num_classes: number of labels.
    labels: int32, one per file.
    listing_digest: of a long list of files, by which other processes know it
      again, see `folder_index`; None of a short one.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    class_names: Iterable[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    order: str = picture_order.TEXT,
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
        thousands). Those of the images that cdm draws are not classes either,
        see `numbered_names`.
      labels: a file with the label of each image, see `label_file`; the
        subfolders are then not classes.
      order: 'text', 'numbers' or the path of a list, see `picture_order`. Runs
        of versions without this key have the order 'text'.
      max_pixels: an image of more pixels counts as unreadable.
      max_value: the value of white in images of 16 or more bits; see
        `image_decoder.decode`.

    Raises:
      ValueError: the folder does not exist or has no images, it mixes splits or
        copies (see `mixed_folders`), an image is outside of the class folders,
        or the label file is not of these images.
    """
    self._limits = image_decoder.check_limits(max_pixels, max_value)
    names = None if class_names is None else tuple(class_names)
    self.path = os.path.expanduser(path)
    if not os.path.isdir(self.path):
      raise ValueError(f'{self.path!r} is not a folder of images.')
    listing, self.listing_digest = folder_index.list_pictures(self.path)
    self.left_out = listing.left_out_text()
    if not listing.files:
      found = f' ({self.left_out})' if self.left_out else ''
      raise ValueError(
        f'The folder {self.path!r} has no images: no file below it ends in one '
        f'of {" ".join(picture_files.SUFFIXES)}{found}.'
      )
    picture_files.say_left_out(self.path, self.left_out)
    if not names or labels is not None:
      are_classes = names is None and labels is None
      mixed_folders.check(self.path, listing.files, classes=are_classes)
    self.order = order
    self.files = picture_order.ordered(listing.files, order)
    self._has_label_file = labels is not None
    if labels is not None:
      read = label_file.read(labels, self.files, names)
      found = class_labels.translated(read, names, repr(self.path))
      self.labels, self.class_names, _ = found
    else:
      self.labels, self.class_names = self._label_by_folder(names)
    self.num_classes = len(self.class_names)

  def _label_by_folder(self, names):
    """Returns (labels, class names) by the first-level subfolders."""
    folders = [f.split('/', 1)[0] if '/' in f else None for f in self.files]
    if names is None and numbered_names.are_thousands(self.files):
      names = ()
    elif names is None:
      names = tuple(sort_classes({f for f in folders if f is not None}))
    if not names:
      return np.zeros(len(folders), np.int32), names
    label_of = {name: i for i, name in enumerate(names)}
    labels = np.empty(len(folders), np.int32)
    for i, (file, folder) in enumerate(zip(self.files, folders, strict=True)):
      if folder is None or folder not in label_of:
        raise ValueError(
          f'{printable(os.path.join(self.path, file))} is in none of the '
          f'{len(label_of)} class folders {first_names(names)}. '
          f'{"Move it" if folder is None else _NAME_IT}, or read the images '
          'without classes (class_names=() in a config, --no_classes of '
          '`cdm prepare`).'
        )
      labels[i] = label_of[folder]
    return labels, names

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
    if self._has_label_file:
      digest.update(self.labels.tobytes())
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
