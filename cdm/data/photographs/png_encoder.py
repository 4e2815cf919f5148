"""Writes a PNG file row band by row band.

Bands are filtered and compressed by several threads. Each becomes a piece of
one deflate stream that ends at a byte, as `pigz` does it, and every reader of
PNG reads the pieces as one.
"""

import struct
import zlib
from typing import IO

import numpy as np

from cdm.data import png_chunks
from cdm.data.photographs import ordered_work, png_filters
from cdm.data.photographs.carried_metadata import Carried
from cdm.data.photographs.output_kinds import Layout

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_BAND_BYTES = 2**20
_ADLER = 65521  # RFC 1950
# RFC 1950: deflate with a window of 32 kB, and which effort was made.
_ZLIB_HEAD = b'\x78\x5e'
# Of photograph-like pictures, level 6 takes off a tenth of the bytes and needs
# ten times as long; see benchmarks/photograph_files.py.
DEFAULT_LEVEL = 2


class PngEncoder:
  """Writes rows to an open file; see `picture_writer`."""

  def __init__(
    self, file: IO[bytes], layout: Layout, carried: Carried, level: int
  ):
    self._file, self._layout, self._level = file, layout, level
    self._above = np.zeros(layout.row_bytes, np.uint8)
    self._sum = (1, 0)
    self._work = ordered_work.OrderedWork(self._accept)
    file.write(png_chunks.SIGNATURE)
    self._chunk(
      b'IHDR',
      struct.pack(
        '>IIBB3x',
        layout.width,
        layout.height,
        layout.bits,
        _COLOUR_TYPES[layout.channels],
      ),
    )
    for kind, content in _chunks(carried):
      self._chunk(kind, content)
    self._pending = _ZLIB_HEAD

  def write(self, rows: np.ndarray) -> None:
    """Writes [N, W, C] rows of uint8 or uint16."""
    layout = self._layout
    raw = rows.astype('>u2') if layout.bits == 16 else rows
    raw = np.ascontiguousarray(raw).view(np.uint8)
    raw = raw.reshape(len(rows), layout.row_bytes)
    step = layout.channels * layout.bits // 8
    count = max(1, _BAND_BYTES // layout.row_bytes)
    for top in range(0, len(raw), count):
      band = raw[top : top + count]
      self._work.submit(_deflated, band, self._above, step, self._level)
      self._above = band[-1].copy()

  def finish(self) -> None:
    """Writes the end of the file."""
    self._work.finish()
    end = zlib.compressobj(wbits=-15).flush(zlib.Z_FINISH)
    checksum = self._sum[1] << 16 | self._sum[0]
    self._chunk(b'IDAT', self._pending + end + struct.pack('>I', checksum))
    self._chunk(b'IEND', b'')

  def close(self) -> None:
    """Ends the threads."""
    self._work.close()

  def _accept(self, piece):
    packed, checksum, length = piece
    self._sum = _combined(self._sum, checksum, length)
    self._chunk(b'IDAT', self._pending + packed)
    self._pending = b''

  def _chunk(self, kind, content):
    checksum = zlib.crc32(content, zlib.crc32(kind))
    self._file.write(struct.pack('>I', len(content)) + kind)
    self._file.write(content)
    self._file.write(struct.pack('>I', checksum))


def _deflated(rows, above, step, level):
  """Returns (piece of a deflate stream, its Adler-32 sum, bytes packed)."""
  data = png_filters.filtered(rows, above, step).reshape(-1).data
  # Z_FILTERED, for differences: fewer matches, more Huffman coding.
  packer = zlib.compressobj(level, wbits=-15, memLevel=9, strategy=1)
  packed = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
  checksum = zlib.adler32(data)
  return packed, (checksum & 0xFFFF, checksum >> 16), len(data)


def _combined(first, second, length):
  """Returns the Adler-32 sum of two parts, of which the second has a length."""
  low = (first[0] + second[0] - 1) % _ADLER
  high = (first[1] + second[1] + length * (first[0] - 1)) % _ADLER
  return low, high


def _chunks(carried):
  """Yields (type, content) of the chunks before the pixels."""
  yield from carried.colours
  if carried.icc and b'cICP' not in dict(carried.colours):
    yield b'iCCP', b'ICC profile\0\0' + zlib.compress(carried.icc)
  if carried.resolution is not None:
    x, y = (round(100 * number) for number in carried.resolution.per('cm'))
    yield b'pHYs', struct.pack('>IIB', x, y, 1)
  if carried.exif:
    yield b'eXIf', carried.exif
  if carried.xmp:
    yield b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + carried.xmp
  if carried.iptc:
    yield b'zTXt', _raw_profile(b'iptc', carried.iptc)
  yield from carried.texts


def _raw_profile(name, records):
  """Returns the text that programs keep IPTC records in, which PNG has not."""
  padded = records + bytes(len(records) % 2)
  block = struct.pack('>4sHHI', b'8BIM', 0x0404, 0, len(records)) + padded
  digits = block.hex().encode()
  lines = b'\n'.join(digits[i : i + 72] for i in range(0, len(digits), 72))
  text = b'\n%s\n%8d\n%s\n' % (name, len(block), lines)
  return b'Raw profile type %s\0\0' % name + zlib.compress(text)
