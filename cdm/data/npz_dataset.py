"""A source of the labelled images in an .npz, such as `cdm sample` writes.

See `source` for the contract and `npz_images` for the layout. The names of the
classes stand in `classes.json` beside the archive.
"""

import hashlib
import os
import pathlib

import numpy as np

from cdm.data import class_names as stored_names
from cdm.data import npz_images, source

MOST_UNNAMED = 100_000  # classes that are numbers and no more


class Archive:
  """The pictures of one .npz, in their order."""

  def __init__(self, path, class_names=None):
    """Opens it.

    Args:
      path: of the .npz.
      class_names: the meaning of the classes 0, 1, 2, ...; the archive's
        labels are translated by name where it names its own, and taken as
        they are where it does not. None: its own names, or numbers.

    Raises:
      ValueError: no such file, damaged, without labels, or of classes that
        are not among `class_names`.
    """
    self.path = os.path.expanduser(path)
    if not os.path.isfile(self.path):
      raise ValueError(f'{self.path} is not there; it is an .npz of pictures.')
    self._open()
    labels = self._images.labels
    if labels is None:
      raise ValueError(
        f'{self.path} has no {npz_images.LABELS}; the labels of its pictures '
        'are expected there, int [N] (`cdm sample` writes them where the '
        'stages have classes).'
      )
    own = self.own_names()
    self.named = own is not None  # or its labels are numbers and no more
    if own is not None and class_names is not None:
      labels = _translated(labels, own, tuple(class_names), self.path)
    names = own if class_names is None else class_names
    if names is None:
      names = self._numbers(int(labels.max()))
    self.class_names = tuple(names)
    self.num_classes = len(self.class_names)
    if labels.max() >= self.num_classes:
      raise ValueError(
        f'{self.path} has labels from {labels.min()} to {labels.max()}, but '
        f'there are {self.num_classes} classes, 0 to {self.num_classes - 1}.'
      )
    self.labels = labels.astype(np.int32)

  def _open(self):
    # Not all bytes are read: of a large archive that takes as long as an epoch.
    self._images = npz_images.open_images(self.path, check_bytes=False)
    if self._images.shape[2] != 3:
      raise ValueError(
        f'{npz_images.IMAGES} of {self.path} has {self._images.shape[2]} '
        'channel; expected are pictures in colour, [N, H, W, 3].'
      )

  def _numbers(self, largest):
    """-> names of the classes of an archive that names none."""
    if largest >= MOST_UNNAMED:
      raise ValueError(
        f'{self.path} has a label of {largest} and no {stored_names.FILE} '
        f'beside it. Without names there may be {MOST_UNNAMED} classes: name '
        'them there, or write the labels again.'
      )
    return [str(n) for n in range(largest + 1)]

  def own_names(self):
    """-> names of the classes that stand beside the archive, or None."""
    return stored_names.read(pathlib.Path(self.path).parent)

  def __getstate__(self):  # opened again in a worker process
    return {k: v for k, v in self.__dict__.items() if k != '_images'}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._open()

  def __len__(self):
    return self._images.count

  @property
  def fingerprint(self):
    """Of size and labels: reading all pixels would take as long as an epoch."""
    shape = (len(self), *self._images.shape)
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(self.labels.tobytes())
    digest.update(self._images.read(0).tobytes())
    digest.update(self._images.read(-1).tobytes())
    return f'archive:{digest.hexdigest()[:16]}'

  def __getitem__(self, i):
    image = np.array(self._images.read(i))  # writable
    return source.element(image, self.labels[i])


def _translated(labels, own, names, path):
  """Labels that count `own` names -> labels that count `names`."""
  strange = [name for name in own if name not in names]
  if strange:
    raise ValueError(
      f'{path} has {len(strange)} classes that are not among the '
      f'{len(names)} wanted, first {strange[0]!r} (wanted are {names[0]!r}, '
      '...). Use data of the same classes.'
    )
  if labels.max() >= len(own):
    raise ValueError(
      f'{path} has labels from {labels.min()} to {labels.max()}, but names '
      f'{len(own)} classes in {stored_names.FILE} beside it.'
    )
  return np.array([names.index(name) for name in own])[labels]
