"""Looks at the head of a photograph's file: its kind and its size."""

import os
import struct
from typing import NamedTuple

from cdm.data import image_decoder, image_kinds, portable_anymap
from cdm.data.image_parts import Unreadable, Unusable
from cdm.data.photographs import extra_kinds
from cdm.data.transforms import BadImage, UnusableImage

_HEAD_BYTES = 2**16
_PNG_BITS = 24  # where a PNG file says how many bits a sample has


class Header(NamedTuple):
  """What the head of a file says.

  Attributes:
    kind: as `photograph.Photograph.kind`.
    height, width: in pixels, as viewers show the picture.
    bits: of a sample, 8 or 16, as far as the head tells.
  """

  kind: str
  height: int
  width: int
  bits: int = 8


def look(path: str | os.PathLike[str]) -> Header:
  """Returns the header of a file, of which no pixel is decoded.

  Raises:
    BadImage, UnusableImage: see `photograph.decode`.
    UnusableImage: the file cannot be read.
  """
  return decode(image_decoder.read_bytes(path), name=os.fspath(path))


def decode(data: bytes, *, name: str) -> Header:
  """Returns the header of a file, of which no pixel is decoded.

  Args:
    data: bytes of the file.
    name: the photograph's name in errors.

  Raises:
    BadImage, UnusableImage: see `photograph.decode`.
  """
  try:
    return _header(data)
  except Unusable as error:
    raise UnusableImage(name, error.reason) from error
  except Unreadable as error:
    raise BadImage(name, error.reason) from error
  except struct.error as error:
    raise BadImage(name, 'the file is cut off') from error


def kind_of(path: str | os.PathLike[str]) -> str:
  """Returns the kind of a file from its first bytes, see `Header`.

  Raises:
    BadImage: it is of no kind that is read.
    OSError: the file cannot be read.
  """
  with open(path, 'rb') as file:
    data = file.read(_HEAD_BYTES)
  extra = extra_kinds.kind_of(data)
  if extra is not None:
    return extra.name
  if portable_anymap.is_binary(data):
    return 'PBM, PGM or PPM'
  try:
    return image_kinds.kind_of(data).name
  except Unreadable as error:
    raise BadImage(os.fspath(path), error.reason) from error


def _header(data):
  extra = extra_kinds.kind_of(data)
  if extra is not None:
    with extra_kinds.opened(extra, data) as opened:
      width, height = opened.size
    return Header(extra.name, height, width)
  if portable_anymap.is_binary(data):
    width, height, *_ = portable_anymap.read_header(data)
    return Header('PBM, PGM or PPM', height, width)
  kind = image_kinds.kind_of(data)
  parts = kind.split(data)
  size, orientation = parts.size, parts.orientation
  if size is None:
    with image_kinds.open_image(kind, parts.data) as image:
      size = image.size
      if kind.name == 'AVIF':
        orientation = image_kinds.parts_of_avif(image, parts).orientation
  width, height = size
  if orientation >= 5:  # it lies on its side
    width, height = height, width
  bits = data[_PNG_BITS] if kind.name == 'PNG' else parts.bits
  return Header(kind.name, height, width, 16 if bits > 8 else 8)
