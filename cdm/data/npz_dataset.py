"""Reads a labelled .npz, such as `cdm sample` writes, as a source of images.

`npz_images` describes the layout of the file. The names of the classes are in
`classes.json`, in the folder of the archive.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from cdm.data import class_labels, npz_images, source
from cdm.data import class_names as stored_names

MAX_UNNAMED_CLASSES = 100_000  # of an archive without a classes.json beside it


class Archive:
  """A source of the images of one .npz, in the order they are stored.

  Attributes:
    path: the .npz.
    labels: int32 [N].
    named: whether the archive names its classes; if not, nothing says which
      classes its labels stand for.
    class_names: the name of each label.
    num_classes: number of labels.
  """

  def __init__(
    self, path: str | os.PathLike[str], class_names: Iterable[str] | None = None
  ):
    """Opens the archive.

    Args:
      path: the .npz.
      class_names: the names of the labels 0, 1, 2, ... If the archive names its
        own classes, its labels are translated by name; if not, its labels must
        be indices into these names already. None takes the archive's own
        names, or '0', '1', '2', ... if it has none; () gives all images the
        label 0.

    Raises:
      damaged_file.DamagedFile: the file is damaged.
      ValueError: the file does not exist or has no labels, or it has classes
        that are not among `class_names`.
    """
    self.path = os.path.expanduser(path)
    if not os.path.isfile(self.path):
      raise ValueError(f'{self.path} does not exist; give an .npz of images.')
    self._open(check_bytes=True)
    labels = self._images.labels
    if labels is None:
      raise ValueError(
        f'{self.path} has no {npz_images.LABELS}; the labels of its images '
        'are expected there, int [N] (`cdm sample` writes them if the stages '
        'have classes).'
      )
    own, largest = self.own_names(), int(labels.max())
    self.named = own is not None
    if own is None and largest >= MAX_UNNAMED_CLASSES:
      raise ValueError(
        f'{self.path} has the label {largest} and no {stored_names.FILE} '
        f'beside it. Without names, at most {MAX_UNNAMED_CLASSES} classes are '
        'allowed: write the names there, or correct the labels.'
      )
    if own is not None and largest >= len(own):
      raise ValueError(
        f'{self.path} has labels from {labels.min()} to {largest}, but '
        f'{stored_names.FILE} beside it names {len(own)} classes.'
      )
    own = tuple(own or (str(n) for n in range(largest + 1)))
    stored = class_labels.Labels(labels.astype(np.int32), own, self.named)
    names = None if class_names is None else tuple(class_names)
    found = class_labels.translated(stored, names, self.path)
    self.labels, self.class_names = found.values, found.class_names
    self.num_classes = len(self.class_names)

  def _open(self, check_bytes):
    self._images = npz_images.open_images(self.path, check_bytes=check_bytes)
    if self._images.shape[2] != 3:
      raise ValueError(
        f'{npz_images.IMAGES} of {self.path} has {self._images.shape[2]} '
        'channel; colour images [N, H, W, 3] were expected.'
      )

  def own_names(self) -> list[str] | None:
    """Returns the class names stored beside the archive, or None."""
    return stored_names.read(pathlib.Path(self.path).parent)

  # The open file is not pickled; a worker process opens the archive again. Its
  # bytes were compared with their checksum when it was opened first.
  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k != '_images'}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._open(check_bytes=False)

  def __len__(self) -> int:
    return self._images.count

  @property
  def fingerprint(self) -> str:
    """A hash of the shape, the labels, and the first and last image.

    Reading all pixels would take as long as an epoch.
    """
    shape = (len(self), *self._images.shape)
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(self.labels.tobytes())
    digest.update(self._images.read(0).tobytes())
    digest.update(self._images.read(-1).tobytes())
    return f'archive:{digest.hexdigest()[:16]}'

  def __getitem__(self, i: int) -> source.Element:
    image = np.array(self._images.read(i))  # a writable copy
    return source.element(image, self.labels[i])
