"""Writes a picture row band by row band, with its metadata.

The rows go to an unfinished file in the same folder, which is opened again and
then renamed; an error or Ctrl-C leaves nothing behind.
"""

import contextlib
import os
import pathlib
import struct
from collections.abc import Generator
from typing import IO, NamedTuple, Protocol

import numpy as np
import tifffile

from cdm.data import image_kinds, png_chunks
from cdm.data.files import atomic_files
from cdm.data.photographs import (
  bmp_encoder,
  jpeg_encoder,
  marks,
  output_kinds,
  output_limits,
  png_encoder,
  tiff_encoder,
  transparency,
  whole_encoder,
)
from cdm.data.photographs.carried_metadata import Carried
from cdm.data.photographs.output_kinds import Layout, OutputKind


class Options(NamedTuple):
  """How a picture is compressed.

  Attributes:
    quality: 1 to 100, of JPEG, WebP and AVIF; None takes the default of
      `output_kinds.KINDS`.
    subsampling: of the colours of a JPEG file: '4:4:4' keeps all, '4:2:0' a
      quarter.
    compression: 0 to 9, the effort for PNG and TIFF, which lose nothing.
  """

  quality: int | None = None
  subsampling: str = '4:4:4'
  compression: int = png_encoder.DEFAULT_LEVEL


DEFAULTS = Options()
_NO_METADATA = Carried()


class _Encoder(Protocol):
  def write(self, rows: np.ndarray) -> None: ...
  def finish(self) -> None: ...
  def close(self) -> None: ...


class Writer:
  """Takes the rows of a picture from top to bottom.

  Attributes:
    kind: what is written.
    layout: of the rows that are taken.
    notes: what this kind of file cannot hold, as clauses.
  """

  def __init__(
    self,
    kind: OutputKind,
    layout: Layout,
    notes: tuple[str, ...],
    encoder: _Encoder,
  ):
    self.kind, self.layout, self.notes = kind, layout, notes
    self._stored = output_kinds.stored(kind, layout)
    self._encoder, self._count = encoder, 0

  def write(self, rows: np.ndarray) -> None:
    """Writes the next rows.

    Args:
      rows: uint8 or uint16 [N, W, C] of the writer's layout; [N, W] for grey.

    Raises:
      ValueError: they are not, or are more than the picture has.
    """
    layout = self.layout
    if rows.ndim == 2:
      rows = rows[..., None]
    expected = (layout.width, layout.channels)
    dtype = np.uint16 if layout.bits == 16 else np.uint8
    if rows.shape[1:] != expected or rows.dtype != dtype:
      raise ValueError(
        f'Rows are {rows.dtype} {rows.shape}; expected {np.dtype(dtype)} '
        f'[N, {layout.width}, {layout.channels}].'
      )
    if self._count + len(rows) > layout.height:
      raise ValueError(
        f'{self._count + len(rows)} rows were given for a picture of '
        f'{layout.height}.'
      )
    self._count += len(rows)
    if not len(rows):
      return
    if layout.channels != self._stored.channels:
      rows = transparency.over_white(rows)
    if layout.bits != self._stored.bits:
      rows = _to_8_bits(rows)
    # The caller may write into its rows again.
    self._encoder.write(np.array(rows, order='C'))

  def finish(self) -> None:
    """Writes the end of the file.

    Raises:
      ValueError: rows are missing.
    """
    if self._count != self.layout.height:
      raise ValueError(
        f'Only {self._count} of {self.layout.height} rows were written.'
      )
    self._encoder.finish()


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike[str],
  layout: Layout,
  *,
  kind: OutputKind | None = None,
  carried: Carried = _NO_METADATA,
  options: Options = DEFAULTS,
  mark: str | None = None,
) -> Generator[Writer]:
  """Context manager that yields a `Writer`; the file appears at its end.

  The writer is finished when the block ends without an error.

  Args:
    path: of the file, in a folder that exists. An older file is replaced.
    layout: of the rows that will be given.
    kind: what is written; None takes the kind that the suffix means.
    carried: metadata for this picture, see `metadata_output.for_output`.
    options: see `Options`.
    mark: what the file is known by again, see `marks`; None for no mark.

  Raises:
    ValueError: the format or the disk cannot hold the picture, an option is
      out of range, or rows are missing or of another layout.
    OSError: the file cannot be written.
  """
  path = pathlib.Path(path)
  kind = output_kinds.by_suffix(path) if kind is None else kind
  check_options(options)
  output_limits.check(kind, layout, path.parent)
  with atomic_files.write_atomically(path) as partial:
    with open(partial, 'wb') as file:
      encoder = _encoder(
        kind, file, output_kinds.stored(kind, layout), carried, options
      )
      notes = losses(kind, layout, carried)
      try:
        writer = Writer(kind, layout, notes, encoder)
        yield writer
        writer.finish()
      finally:
        encoder.close()
    if mark is not None:
      marks.append(partial, kind.name, mark)
    _verify(partial, kind, layout)


def check_options(options: Options) -> None:
  """Checks the options.

  Raises:
    ValueError: one is out of its range.
  """
  if options.quality is not None and not 1 <= options.quality <= 100:
    raise ValueError(f'quality is {options.quality}; it must be 1 to 100.')
  if not 0 <= options.compression <= 9:
    raise ValueError(
      f'compression is {options.compression}; it must be 0 to 9.'
    )
  if options.subsampling not in jpeg_encoder.SUBSAMPLINGS:
    raise ValueError(
      f'subsampling is {options.subsampling!r}; it must be one of '
      f'{", ".join(jpeg_encoder.SUBSAMPLINGS)}.'
    )


def losses(
  kind: OutputKind, layout: Layout, carried: Carried
) -> tuple[str, ...]:
  """Returns what a kind of file cannot hold of a picture, as clauses."""
  blocks = ('exif', 'xmp', 'iptc', 'icc')
  has = {name: bool(getattr(carried, name)) for name in blocks}
  said = output_kinds.losses(kind, layout, has)
  if kind.name == 'JPEG':
    said += tuple(
      f'JPEG is written without its {name}, which is too long for it'
      for name in jpeg_encoder.too_long(carried)
    )
  elif carried.comment:
    said += (f'{kind.name} is written without its comment',)
  if kind.name != 'PNG' and [t for t in carried.texts if not _is_ours(t)]:
    said += (f'{kind.name} is written without its PNG texts',)
  return said


def _is_ours(text):
  return text[1].startswith(b'Software\0')


def _to_8_bits(rows):
  """Returns uint8 rows of 16-bit ones, rounded to the nearest."""
  return ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _encoder(
  kind: OutputKind,
  file: IO[bytes],
  layout: Layout,
  carried: Carried,
  options: Options,
) -> _Encoder:
  quality = options.quality or kind.quality or 0
  if kind.name == 'JPEG':
    return jpeg_encoder.JpegEncoder(
      file, layout, carried, quality, options.subsampling
    )
  if kind.name == 'PNG':
    return png_encoder.PngEncoder(file, layout, carried, options.compression)
  if kind.name == 'TIFF':
    return tiff_encoder.TiffEncoder(file, layout, carried, options.compression)
  if kind.name == 'BMP':
    return bmp_encoder.BmpEncoder(file, layout, carried)
  return whole_encoder.WholeEncoder(file, layout, carried, kind.name, quality)


def _verify(path, kind, layout):
  """Opens a file again and compares its size."""
  size = image_size(path, kind.name)
  if size != (layout.width, layout.height):
    raise OSError(
      f'The file that was written has {size} pixels instead of '
      f'{(layout.width, layout.height)}.'
    )


def image_size(path: pathlib.Path, kind: str) -> tuple[int, int]:
  """Returns (width, height) of a picture file, of which no pixel is decoded.

  Args:
    path: its path.
    kind: the name of its kind.

  Raises:
    OSError: it cannot be read.
  """
  if kind == 'PNG':
    with open(path, 'rb') as file:
      head = file.read(24)
    if not head.startswith(png_chunks.SIGNATURE):
      raise OSError(f'{path} is no PNG file.')
    return struct.unpack('>II', head[16:24])
  if kind == 'TIFF':
    with tifffile.TiffFile(path) as file:
      return file.pages.first.imagewidth, file.pages.first.imagelength
  return image_kinds.size_of_file(path, kind)
