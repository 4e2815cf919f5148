"""Reads a folder of image files as a source; its subfolders are the classes."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable

from cdm.data import (
  class_labels,
  dataset_json,
  folder_classes,
  folder_index,
  image_decoder,
  label_file,
  mixed_folders,
  picture_files,
  picture_order,
  unread_files,
)
from cdm.data.encoded_files import Encoded, EncodedFiles


class Folder(EncodedFiles):
  """A source of the image files in a folder and below it.

  What counts as an image file, and what is left out, see `picture_files`. The
  labels of a folder that StyleGAN's or EDM's tools wrote are not those of its
  subfolders, see `dataset_json`.

  Attributes:
    path: the folder.
    files: paths of the image files, relative to the folder, in their order.
    order: what decides that order, see `picture_order`.
    left_out: a text about what else lies in the folder; '' for nothing.
    class_names: the name of each label; () if there are none.
    named: whether these names say which classes are meant, see `class_labels`.
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
    exif_rotation: bool = True,
  ):
    """Lists the image files.

    Args:
      path: the folder.
      class_names: the first-level subfolders that are the classes 0, 1, 2, ...
        None takes all of them, see `folder_classes`. Give the names if two
        folders must have the same labels although one lacks a class. An empty
        tuple means that the subfolders are not classes. If the folder has a
        dataset.json, the labels are in it, and these are their names.
      labels: a file with the label of each image, see `label_file`; neither the
        subfolders nor a dataset.json are then asked.
      order: 'text', 'numbers' or the path of a list, see `picture_order`. Runs
        of versions without this key have the order 'text'.
      max_pixels: an image of more pixels counts as unreadable.
      max_value: the value of white in images of 16 or more bits; see
        `image_decoder.decode`.
      exif_rotation: whether images are turned as their EXIF orientation says.
        False is what the loaders of the papers do, to ImageNet too.

    Raises:
      ValueError: the folder does not exist or has no images, it mixes splits or
        copies (see `mixed_folders`), an image is outside of the class folders,
        or the label file is not of these images.
    """
    self._limits = image_decoder.check_limits(
      max_pixels, max_value, exif_rotation
    )
    names = None if class_names is None else tuple(class_names)
    self.path = os.path.expanduser(path)
    if not os.path.isdir(self.path):
      raise ValueError(unread_files.refusal(self.path))
    listing, self.listing_digest = folder_index.list_pictures(self.path)
    self.left_out = listing.left_out_text()
    if not listing.files:
      left_out = listing.left_out
      latents = sum(left_out.get(each, 0) for each in dataset_json.LATENTS)
      dataset_json.refuse_latents(latents, name=self.path)
      found = f' ({self.left_out})' if self.left_out else ''
      raise ValueError(
        f'The folder {self.path!r} has no images: no file below it ends in one '
        f'of {" ".join(picture_files.SUFFIXES)}{found}.'
      )
    picture_files.say_left_out(self.path, self.left_out)
    if labels is not None:
      mixed_folders.check(self.path, listing.files, classes=False)
    self.order = order
    self.files = picture_order.ordered(listing.files, order)
    self._stores_labels = labels is not None or (
      names != () and os.path.isfile(self._dataset_json())
    )
    found = self._labels(labels, names)
    self.labels, self.class_names, self.named = found
    self.num_classes = len(self.class_names)

  def _labels(self, file, names):
    """Returns the labels that a file states, or the subfolders."""
    if file is not None:
      found = label_file.read(file, self.files, names)
      return class_labels.translated(found, names, repr(self.path))
    if self._stores_labels:
      return self._stored_labels(names)
    return folder_classes.labels_of(self.files, names, root=self.path)

  def _dataset_json(self):
    return os.path.join(self.path, dataset_json.FILE)

  def _stored_labels(self, names):
    path = pathlib.Path(self._dataset_json())
    found = dataset_json.parse(
      path.read_bytes(), self.files, name=str(path), folder=self.path
    )
    return class_labels.translated(found, names, str(path))

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
    if self._stores_labels:
      digest.update(self.labels.tobytes())
    if not self._limits.get('exif_rotation', True):
      digest.update(b'exif_rotation False\0')
    for file in self.files:
      size = os.stat(os.path.join(self.path, file)).st_size
      digest.update(f'{file}\0{size}\n'.encode(errors='surrogateescape'))
    return f'folder:{digest.hexdigest()[:16]}'

  def file_names(self) -> tuple[str, ...]:
    """Returns the path of each image relative to the folder."""
    return self.files

  def encoded(self, i: int) -> Encoded:
    """Returns image i as it is stored."""
    path = os.path.join(self.path, self.files[i])
    most = self._limits['max_pixels']
    data = image_decoder.read_bytes(path, max_pixels=most)
    return Encoded(data, str(pathlib.Path(path)), int(self.labels[i]))
