"""The base of sources whose images are members of one tar or of several."""

import collections
import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np

from cdm.data import image_decoder
from cdm.data.class_labels import Labels
from cdm.data.forms import byte_ranges, encoded_images, member_names
from cdm.data.forms.kept_index import Records
from cdm.data.forms.packed_names import PackedNames


class TarRecords(encoded_images.EncodedImages):
  """A source of images in tars that are not compressed; see `EncodedImages`."""

  def __init__(
    self,
    path: str | os.PathLike[str],
    tars: Sequence[tuple[str, Records]],
    labels: Labels,
    *,
    class_names: Iterable[str] | None,
    max_pixels: int,
    max_value: float | None,
    label_path: str | os.PathLike[str] | None,
    exif_rotation: bool,
  ):
    """Takes the records of the tars.

    Args:
      path: what was opened.
      tars: (path, records) of every tar, in the order of the images.
      labels: see `EncodedImages`.
      class_names: see `EncodedImages`.
      max_pixels: see `EncodedImages`.
      max_value: see `EncodedImages`.
      label_path: see `EncodedImages`.
      exif_rotation: see `EncodedImages`.
    """
    records = [found for _, found in tars]
    self._tars = [tar for tar, _ in tars]
    self._ends = np.cumsum([len(found.names) for found in records])
    self._offsets = np.concatenate([found.offsets for found in records])
    self._sizes = np.concatenate([found.sizes for found in records])
    super().__init__(
      path,
      _joined([found.names for found in records]),
      labels,
      class_names=class_names,
      max_pixels=max_pixels,
      max_value=max_value,
      label_path=label_path,
      exif_rotation=exif_rotation,
    )
    left_out = collections.Counter()
    for found in records:
      left_out.update(found.left_out)
    member_names.say_left_out(self.path, left_out)

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


def _joined(parts: Sequence[PackedNames]) -> PackedNames:
  if len(parts) == 1:
    return parts[0]
  begins = np.cumsum([0, *(len(part.data) for part in parts[:-1])])
  ends = [part.ends + b for part, b in zip(parts, begins, strict=True)]
  return PackedNames(
    np.concatenate([part.data for part in parts]), np.concatenate(ends)
  )
