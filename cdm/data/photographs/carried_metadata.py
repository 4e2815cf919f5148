"""Defines what a picture file says besides its pixels, to be written back.

The blocks stay bytes; nothing in them is interpreted here.
"""

from fractions import Fraction
from typing import NamedTuple

ICC, EXIF, XMP, IPTC = 'colour profile', 'EXIF', 'XMP', 'IPTC'
_CM_PER_INCH = Fraction(254, 100)
# Chunks of PNG that say what the samples mean.
COLOUR_CHUNKS = (b'cICP', b'gAMA', b'cHRM', b'sRGB')


class Resolution(NamedTuple):
  """Pixels per inch or per centimetre, as a file states them.

  Attributes:
    x, y: pixels per unit.
    unit: 'inch' or 'cm'.
  """

  x: Fraction
  y: Fraction
  unit: str = 'inch'

  def per(self, unit: str) -> tuple[Fraction, Fraction]:
    """Returns (x, y) in another unit, 'inch' or 'cm'."""
    if unit == self.unit:
      return self.x, self.y
    factor = _CM_PER_INCH if unit == 'inch' else 1 / _CM_PER_INCH
    return self.x * factor, self.y * factor


class Carried(NamedTuple):
  """The metadata of a picture file.

  Attributes:
    icc: bytes of an ICC profile.
    exif: a TIFF structure, without the six bytes 'Exif' 0 0.
    xmp: an XMP packet.
    iptc: IPTC-IIM records.
    resolution: see `Resolution`.
    comment: the comment of a JPEG file.
    chunks: (type, content) of chunks of PNG: `COLOUR_CHUNKS`, and texts.
  """

  icc: bytes | None = None
  exif: bytes | None = None
  xmp: bytes | None = None
  iptc: bytes | None = None
  resolution: Resolution | None = None
  comment: bytes | None = None
  chunks: tuple[tuple[bytes, bytes], ...] = ()

  @property
  def texts(self) -> tuple[tuple[bytes, bytes], ...]:
    """The chunks of text."""
    return tuple(pair for pair in self.chunks if pair[0] not in COLOUR_CHUNKS)

  @property
  def colours(self) -> tuple[tuple[bytes, bytes], ...]:
    """The chunks that say what the samples mean."""
    return tuple(pair for pair in self.chunks if pair[0] in COLOUR_CHUNKS)
