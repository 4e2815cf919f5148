"""Changes the metadata of a photograph into those of its enlarged picture.

Nothing in them is interpreted but what such a picture changes: orientation,
size, thumbnail and software.
"""

from cdm.data.photographs import exif_block, tiff_metadata, xmp_packet
from cdm.data.photographs.carried_metadata import Carried


def for_output(
  carried: Carried,
  *,
  width: int,
  height: int,
  software: str | None = None,
  strip: bool = False,
) -> Carried:
  """Returns the metadata of an upright picture made from another.

  The orientation is reset, the size updated, and the thumbnail dropped. All
  else stays as it is, in its place: notes of a camera's maker hold offsets,
  which would break if anything moved.

  Args:
    carried: the metadata of the original.
    width: of the new picture, pixels.
    height: of the new picture, pixels.
    software: what made the new picture; it is added to what the original names.
    strip: keeps only what the pixels need, the colours and the resolution.
  """
  if strip:
    return Carried(
      icc=carried.icc, resolution=carried.resolution, chunks=carried.colours
    )
  exif = carried.exif
  if exif is not None:
    exif = exif_block.updated(exif, width, height, software)
  elif software is not None:
    exif = tiff_metadata.small_block(software, carried.resolution)
  xmp = carried.xmp
  if xmp is not None:
    xmp = xmp_packet.updated(xmp, width, height)
  chunks = carried.chunks
  if software is not None:
    chunks = _with_software(chunks, software.encode('latin-1', 'replace'))
  return carried._replace(exif=exif, xmp=xmp, chunks=chunks)


def _with_software(chunks, software):
  """Returns chunks of PNG with the software added to that which is named."""
  head = b'Software\0'
  former = [c for k, c in chunks if k == b'tEXt' and c.startswith(head)]
  if former:
    software = former[0].removeprefix(head) + b'; ' + software
  rest = tuple(pair for pair in chunks if pair[1] not in former)
  return (*rest, (b'tEXt', head + software))
