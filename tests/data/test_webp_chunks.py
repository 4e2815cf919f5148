import io
import struct

import pytest
from PIL import Image

from cdm.data import webp_chunks
from cdm.data.image_parts import Unreadable


def encoded(size, **options):
  file = io.BytesIO()
  Image.new('RGB', size, 'red').save(file, 'WEBP', **options)
  return file.getvalue()


@pytest.mark.parametrize('size', [(1, 1), (300, 7), (16383, 2), (3, 16383)])
@pytest.mark.parametrize(
  ('first', 'options'),
  [
    (b'VP8 ', {}),
    (b'VP8L', {'lossless': True}),
    (b'VP8X', {'icc_profile': bytes(10)}),
  ],
)
def test_the_size_is_read_from_every_kind_of_frame(size, first, options):
  data = encoded(size, **options)
  assert data[12:16] == first
  assert webp_chunks.split(data).size == size


def test_a_canvas_beyond_16_bits_is_read():
  head = b'RIFF' + bytes(4) + b'WEBP'
  canvas = b'\0' * 4 + (2**24 - 1).to_bytes(3, 'little') + b'\0\0\1'
  data = head + b'VP8X' + struct.pack('<I', 10) + canvas
  assert webp_chunks.split(data).size == (2**24, 2**16 + 1)


@pytest.mark.parametrize('kept', [0, 12, 20, 24])
def test_a_file_without_a_size_is_damaged(kept):
  with pytest.raises(Unreadable, match='cut off or damaged'):
    webp_chunks.split(encoded((3, 4))[:kept])


def test_an_odd_chunk_is_followed_by_a_byte_of_filling():
  data = encoded((300, 7))
  odd = b'XXXX' + struct.pack('<I', 3) + b'abc\0'
  assert webp_chunks.split(data[:12] + odd + data[12:]).size == (300, 7)


@pytest.mark.parametrize(('frames', 'more'), [(1, False), (2, True)])
def test_an_animation_has_more_than_its_first_frame(frames, more):
  others = [Image.new('RGB', (8, 8), (c, 0, 0)) for c in range(1, frames)]
  data = encoded((8, 8), save_all=True, append_images=others)
  assert webp_chunks.split(data).has_more is more
