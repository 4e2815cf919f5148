"""Changes in an XMP packet what an enlarged and upright picture changes."""

import re

# A property is an attribute, tiff:Orientation="6", or an element.
_VALUE = rb'(\b%s\s*(?:=\s*["\']|>)\s*)\d+(\s*["\'<])'
_THUMBNAILS = re.compile(
  rb'<xmp:Thumbnails\b.*?(?:</xmp:Thumbnails>|/>)', re.DOTALL
)


def is_sound(xmp: bytes) -> bool:
  """Whether bytes may be an XMP packet: there is RDF inside."""
  return b'rdf:RDF' in xmp or b'x:xmpmeta' in xmp


def updated(xmp: bytes, width: int, height: int) -> bytes:
  """Returns a packet for an upright picture of another size.

  Args:
    xmp: the packet of the original.
    width: of the new picture, pixels.
    height: of the new picture, pixels.
  """
  for name, value in (
    (rb'tiff:Orientation', 1),
    (rb'tiff:ImageWidth', width),
    (rb'tiff:ImageLength', height),
    (rb'exif:PixelXDimension', width),
    (rb'exif:PixelYDimension', height),
  ):
    xmp = re.sub(_VALUE % name, rb'\g<1>%d\g<2>' % value, xmp)
  return _THUMBNAILS.sub(b'', xmp)
