"""The base of sources whose images are members of one tar or of several."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np

from cdm.data import image_decoder
from cdm.data.class_labels import Labels
from cdm.data.forms import byte_ranges, encoded_images, member_names
from cdm.data.forms.tar_images import TarImages


class TarRecords(encoded_images.EncodedImages):
  """A source of images in tars that are not compressed; see `EncodedImages`."""

  def __init__(
    self,
    path: str | os.PathLike[str],
    tars: Sequence[str],
    images: TarImages,
    labels: Labels,
    *,
    class_names: Iterable[str] | None,
    label_path: str | os.PathLike[str] | None,
    limits: image_decoder.Limits,
  ):
    """Takes the images of the tars.

    Args:
      path: what was opened.
      tars: the path of every tar.
      images: the images in them.
      labels: see `EncodedImages`.
      class_names: see `EncodedImages`.
      label_path: see `EncodedImages`.
      limits: max_pixels, max_value and exif_rotation of `EncodedImages`.
    """
    self._tars = list(tars)
    self._ends = np.cumsum(images.counts)
    self._offsets, self._sizes = images.offsets, images.sizes
    super().__init__(
      path,
      images.names,
      labels,
      class_names=class_names,
      label_path=label_path,
      **limits,
    )
    member_names.say_left_out(self.path, images.left_out)

  def _tar_of(self, i: int) -> str:
    return self._tars[int(np.searchsorted(self._ends, i, side='right'))]

  def name_of(self, i: int) -> str:
    tar = self.path if len(self._tars) == 1 else self._tar_of(i)
    return f'{tar}[{i}] {self._names[i]}'

  def read_bytes(self, i: int) -> bytes:
    size = int(self._sizes[i])
    image_decoder.check_file_bytes(
      size, name=self.name_of(i), max_pixels=self._limits['max_pixels']
    )
    return byte_ranges.read(self._tar_of(i), int(self._offsets[i]), size)

  def stamp(self) -> Iterable[str]:
    yield from self._names
    yield hashlib.sha256(self._sizes.tobytes()).hexdigest()
