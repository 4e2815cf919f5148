"""Finds the classes of images in the folders of their paths.

The paths are those of a folder of images, or of the members of an archive. Both
follow the same rules.
"""

import os
from collections.abc import Collection, Sequence

import numpy as np

from cdm.data import class_labels, mixed_folders, numbered_names
from cdm.data.class_labels import Labels
from cdm.data.printable_name import printable
from cdm.data.source import first_names

_NAME_IT = 'Move it, or name its folder in class_names'


def labels_of(
  files: Sequence[str], class_names: Sequence[str] | None, *, root: str
) -> Labels:
  """Returns the label of every image, by the first folder of its path.

  Args:
    files: paths relative to the root, with forward slashes.
    class_names: the first-level folders that are the classes 0, 1, 2, ... None
      takes all of them, in the order of `sort_classes`, unless they only divide
      numbered images, see `numbered_names`. () means that they are no classes.
    root: names the folder or the archive in an error.

  Raises:
    ValueError: an image is outside of the class folders, or the folders are not
      classes but splits or copies, see `mixed_folders`.
  """
  if not class_names:
    mixed_folders.check(root, files, classes=class_names is None)
  folders = [f.split('/', 1)[0] if '/' in f else None for f in files]
  if class_names is None and numbered_names.only_divide(files):
    class_names = ()
  elif class_names is None:
    class_names = sort_classes({f for f in folders if f is not None})
  names = tuple(class_names)
  if not names:
    return class_labels.none(len(files))
  label_of: dict[str | None, int] = {name: i for i, name in enumerate(names)}
  for file, folder in zip(files, folders, strict=True):
    if folder not in label_of:
      raise ValueError(
        f'{printable(os.path.join(root, file))} is in none of the '
        f'{len(label_of)} class folders {first_names(names)}. '
        f'{"Move it" if folder is None else _NAME_IT}, give a file of labels '
        '(labels in a config, --labels of `cdm prepare`), or read the images '
        'without classes (class_names=() in a config, --no_classes of '
        '`cdm prepare`).'
      )
  return Labels(np.array([label_of[f] for f in folders], np.int32), names)


def sort_classes(names: Collection[str]) -> list[str]:
  """Returns the names of class folders in the order of their labels.

  If all names are numbers, they are sorted as numbers, so that class 10 follows
  class 9. If not, they are sorted as text.
  """
  if all(name.isdecimal() for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)
