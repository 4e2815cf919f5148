"""The base of sources whose images are files inside larger files.

Data sets are distributed as archives and tables whose records are JPEG or PNG
files. A form of them says how its records are listed and how the bytes of one
are read. What is the same for all forms is here: labels, limits, decoding, and
the fingerprint.
"""

import abc
import hashlib
import os
from collections.abc import Iterable, Sequence

from cdm.data import class_labels, image_decoder, label_file
from cdm.data.class_labels import Labels
from cdm.data.encoded_files import Encoded, EncodedFiles


class EncodedImages(EncodedFiles):
  """A source of image files inside larger files; see `cdm.data.source`.

  A form of its own lists its records, passes them to the constructor, and
  defines `read_bytes`. It can be pickled, and several threads may read it at
  once: open files belong in `byte_ranges`, or are left out of its state.

  Attributes:
    path: what was opened.
    labels: int32 [N].
    named: see `class_labels.Labels`.
    class_names: the name of each label; () if there are none.
    num_classes: number of labels.
  """

  KIND = ''  # its name in `train_data.kind`

  def __init__(
    self,
    path: str | os.PathLike[str],
    names: Sequence[str],
    labels: Labels,
    *,
    class_names: Iterable[str] | None,
    max_pixels: int,
    max_value: float | None,
    label_path: str | os.PathLike[str] | None = None,
    exif_rotation: bool = False,
  ):
    """Takes what a form has listed.

    Args:
      path: what was opened.
      names: the name of each record inside it, in their order.
      labels: the labels that the data set itself gives them.
      class_names: the names of the labels 0, 1, 2, ...; the data set's own
        labels are translated by name, see `class_labels.translated`. None takes
        its own names, () gives all images the label 0.
      max_pixels: an image of more pixels counts as unreadable.
      max_value: the value of white in images of 16 or more bits; see
        `image_decoder.decode`.
      label_path: a file with the label of each record, see `label_file`, in
        place of the data set's own; the key `labels` of a config.
      exif_rotation: whether images are turned as their EXIF orientation says;
        the loaders of the papers do not.

    Raises:
      ValueError: there are no images, or the data set has other classes, or the
        label file is not of these images.
    """
    self._limits = image_decoder.check_limits(
      max_pixels, max_value, exif_rotation
    )
    self.path = os.fspath(path)
    self._names = names
    if not len(names):
      raise ValueError(f'{self.path!r} has no images.')
    wanted = None if class_names is None else tuple(class_names)
    if label_path is not None:
      labels = label_file.read(label_path, names, wanted)
    if wanted is None:
      labels = class_labels.in_order_of_ids(labels)
    found = class_labels.translated(labels, wanted, repr(self.path))
    self.labels, self.class_names, self.named = found
    self.num_classes = len(self.class_names)

  @abc.abstractmethod
  def read_bytes(self, i: int) -> bytes:
    """Returns the image file of record i, 0 <= i < N.

    Raises:
      transforms.BadImage: the record is damaged.
    """

  @abc.abstractmethod
  def stamp(self) -> Iterable[str]:
    """Yields texts that change when the files at `path` do.

    Names, sizes and places of the records will do; reading every byte would
    take as long as an epoch.
    """

  def __len__(self) -> int:
    return len(self._names)

  def name_of(self, i: int) -> str:
    """Returns how an error message names record i."""
    return f'{self.path}[{i}] {self._names[i]}'

  def file_names(self) -> Sequence[str]:
    """Returns the name of each record inside the data set."""
    return self._names

  def encoded(self, i: int) -> Encoded:
    """Returns record i as it is stored."""
    if not -len(self) <= i < len(self):
      raise IndexError(f'{self.path}[{i}] of {len(self)}')
    i %= len(self)
    return Encoded(self.read_bytes(i), self.name_of(i), int(self.labels[i]))

  @property
  def fingerprint(self) -> str:
    """A hash of the labels and of what the form says of its files."""
    digest = hashlib.sha256(repr(self.class_names).encode())
    if self._limits.get('max_value') is not None:
      digest.update(f'max_value {self._limits["max_value"]}\0'.encode())
    if self._limits.get('exif_rotation', True):
      digest.update(b'exif_rotation True\0')
    digest.update(self.labels.tobytes())
    for text in self.stamp():
      digest.update(f'{text}\n'.encode(errors='surrogateescape'))
    return f'{self.KIND}:{digest.hexdigest()[:16]}'
