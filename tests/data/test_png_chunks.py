"""A PNG file is known to be whole without decoding it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cdm.data import image_parts, png_chunks


def png():
  noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(noise).save(file, 'PNG')
  return file.getvalue()


def test_a_whole_png_is_whole():
  assert png_chunks.is_whole(png())


@pytest.mark.parametrize('kept', [0, 4, 8, 20, 40, 0.5, -4, -1])
def test_a_png_that_is_cut_off_is_not_whole(kept):
  kept = int(kept * len(png())) if isinstance(kept, float) else kept
  assert not png_chunks.is_whole(png()[:kept])


def test_a_png_with_any_other_byte_is_not_whole():
  data = png()
  for at in range(0, len(data), 7):
    changed = bytearray(data)
    changed[at] ^= 1
    assert not png_chunks.is_whole(bytes(changed)), at


def chunk(kind, content):
  checksum = zlib.crc32(kind + content)
  length = struct.pack('>I', len(content))
  return length + kind + content + struct.pack('>I', checksum)


def with_chunks(*chunks):
  """The file with these (kind, content) behind its first chunk."""
  return png()[:33] + b''.join(chunk(*each) for each in chunks) + png()[33:]


EXIF = b'MM\0*' + struct.pack('>IHHHIHxx', 8, 1, 0x112, 3, 1, 6)
XMP = b'<x tiff:Orientation="6"/>'
KEY = b'XML:com.adobe.xmp\0'
RAW = b'Raw profile type exif\0'
DIGITS = b'\nexif\n    %d\n' % len(EXIF) + EXIF.hex().encode()


@pytest.mark.parametrize(
  ('kind', 'content'),
  [
    (b'eXIf', EXIF),
    (b'iTXt', KEY + b'\0\0\0\0' + XMP),
    (b'iTXt', KEY + b'\0\0de-DE\0XMP auf Deutsch\0' + XMP),
    (b'iTXt', KEY + b'\1\0\0\0' + zlib.compress(XMP)),
    (b'iTXt', KEY + b'\1\0\0\0' + zlib.compress(XMP, 0)),  # with zeros
    (b'tEXt', RAW + DIGITS),
    (b'zTXt', RAW + b'\0' + zlib.compress(DIGITS)),
  ],
)
def test_the_orientation_is_found_in_every_chunk_that_may_state_it(
  kind, content
):
  data = with_chunks((kind, content))
  parts = png_chunks.split(data)
  assert parts.orientation == 6
  assert parts.data == png() and parts.size == (9, 9) and parts.bits == 8


@pytest.mark.parametrize(
  'chunks',
  [
    [(b'tEXt', RAW + DIGITS[:-1])],  # half a byte
    [(b'tEXt', RAW + b'\nexif\n 4\nzzzz')],
    [(b'zTXt', RAW + b'\0' + b'no stream')],
    [(b'tEXt', b'Comment\0' + DIGITS)],
    [(b'tEXt', b'')],
  ],
)
def test_a_text_that_states_no_orientation_leaves_the_image_upright(chunks):
  parts = png_chunks.split(with_chunks(*chunks))
  assert parts.orientation == 1 and parts.data == png()


def test_of_two_orientations_the_chunk_of_its_own_counts():
  other = EXIF.replace(b'\0\6', b'\0\3')
  raw = b'\nexif\n 1\n' + other.hex().encode()
  for chunks in (
    [(b'eXIf', EXIF), (b'tEXt', RAW + raw)],
    [(b'eXIf', EXIF), (b'eXIf', other)],
  ):
    assert png_chunks.split(with_chunks(*chunks)).orientation == 6


ICC = (
  bytes(128)
  + struct.pack('>I4sII', 1, b'desc', 144, 23)
  + (b'desc' + bytes(4) + struct.pack('>I', 11) + b'Display P3\0')
)
PROFILE = b'name\0\0' + zlib.compress(ICC)


@pytest.mark.parametrize(
  ('chunks', 'profile'),
  [
    ([], None),
    ([(b'iCCP', PROFILE)], 'Display P3'),
    ([(b'iCCP', PROFILE), (b'sRGB', b'\0')], None),
    ([(b'sRGB', b'\0')], None),
    ([(b'cICP', b'\1\x0d\0\1')], None),
    ([(b'cICP', b'\x0c\x0d\0\1')], 'cICP primaries 12'),
    ([(b'cICP', b'\1\x0d\0\1'), (b'iCCP', PROFILE)], None),
    ([(b'cICP', b'\x09\x0d\0\1'), (b'sRGB', b'\0')], 'cICP primaries 9'),
  ],
)
def test_the_first_chunk_in_rank_names_the_colours(chunks, profile):
  assert png_chunks.split(with_chunks(*chunks)).profile == profile


@pytest.mark.parametrize(
  ('content', 'significant'), [(b'\5\6\5', 6), (b'\x08\x08\x08', 8)]
)
def test_significant_bits_are_the_most_of_any_channel(content, significant):
  parts = png_chunks.split(with_chunks((b'sBIT', content)))
  assert parts.significant_bits == significant
  assert png_chunks.split(png()).significant_bits is None


def test_a_frame_behind_the_first_is_said():
  assert not png_chunks.split(png()).has_more
  assert png_chunks.split(with_chunks((b'fdAT', b''))).has_more


@pytest.mark.parametrize('kept', [8, 20, 32])
def test_a_file_without_its_head_is_damaged(kept):
  with pytest.raises(image_parts.Unreadable, match='cut off or damaged'):
    png_chunks.split(png()[:kept])
