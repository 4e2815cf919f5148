"""Writes a WebP or AVIF file, which needs the whole picture in memory."""

from typing import IO, Any

import numpy as np
from PIL import Image

from cdm.data.photographs import tiff_metadata
from cdm.data.photographs.carried_metadata import Carried
from cdm.data.photographs.output_kinds import Layout

_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}


class WholeEncoder:
  """Collects rows, and writes them to an open file at the end."""

  def __init__(
    self,
    file: IO[bytes],
    layout: Layout,
    carried: Carried,
    kind: str,
    quality: int,
  ):
    """Makes room for the whole picture.

    Args:
      file: open for writing.
      layout: of the picture.
      carried: its metadata.
      kind: 'WebP' or 'AVIF'.
      quality: 0 to 100.
    """
    self._file, self._kind, self._top = file, kind, 0
    # Neither kind holds grey; Pillow would convert it with a copy.
    self._mode = 'RGBA' if layout.has_alpha else 'RGB'
    self._source = _MODES[layout.channels]
    self._image = Image.new(self._mode, (layout.width, layout.height))
    self._options: dict[str, Any] = {'quality': quality}
    if kind == 'AVIF':
      self._options['subsampling'] = '4:4:4'
    exif = carried.exif or tiff_metadata.small_block(None, carried.resolution)
    for name, block in (
      ('icc_profile', carried.icc),
      ('exif', exif and b'Exif\0\0' + exif),
      ('xmp', carried.xmp),
    ):
      if block:
        self._options[name] = block

  def write(self, rows: np.ndarray) -> None:
    """Takes [N, W, C] rows of uint8."""
    band = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)
    if band.mode != self._mode:
      band = band.convert(self._mode)
    self._image.paste(band, (0, self._top))
    self._top += len(rows)

  def finish(self) -> None:
    """Compresses the picture and writes it."""
    self._image.save(self._file, self._kind.upper(), **self._options)

  def close(self) -> None:
    """Frees the picture."""
    self._image.close()
