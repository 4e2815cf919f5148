"""What sources share whose images are files: they are read, then decoded.

`cdm prepare` keeps the files of such a source where their size does not change.
"""

import abc
from typing import NamedTuple

from cdm.data import image_decoder
from cdm.data.source import Element, element


class Encoded(NamedTuple):
  """An image as it is stored.

  Attributes:
    data: the bytes of an image file.
    name: names it in error messages.
    label: its label, see `source.Element`.
  """

  data: bytes
  name: str
  label: int


class EncodedFiles(abc.ABC):
  """The part of a source that reads a file and decodes it."""

  _limits: image_decoder.Limits

  @abc.abstractmethod
  def encoded(self, i: int) -> Encoded:
    """Returns image i as it is stored."""

  def decode(self, stored: Encoded) -> Element:
    """Returns the element of an image that `encoded` returned."""
    data, name, label = stored
    decoded = image_decoder.decode(data, name=name, **self._limits)
    return element(decoded.pixels, label, decoded.notes)

  def __getitem__(self, i: int) -> Element:
    return self.decode(self.encoded(i))
