import io
import struct

import pytest
from PIL import Image

from cdm.data import jpeg_segments


def encoded(mode='RGB', **options):
  file = io.BytesIO()
  Image.new(mode, (300, 7)).save(file, 'JPEG', **options)
  return file.getvalue()


@pytest.mark.parametrize(
  'filling',
  [
    b'\xff',  # one byte, and three
    b'\xff\xff\xff',
    b'\xff\x01',  # a marker that stands alone
    b'\xff\xd0\xff\x01',
    b'\xff\xfe\0\2',  # an empty comment
  ],
)
def test_the_size_is_found_behind_filling_and_markers_that_stand_alone(filling):
  data = encoded()
  parts = jpeg_segments.split(data[:2] + filling + data[2:])
  assert parts.size == (300, 7)


@pytest.mark.parametrize(
  ('mode', 'progressive', 'working'),
  [
    ('RGB', False, 0),
    ('L', False, 0),
    ('L', True, 2),
    ('RGB', True, 6),
    ('CMYK', True, 8),
  ],
)
def test_a_progressive_file_takes_two_bytes_for_each_sample(
  mode, progressive, working
):
  parts = jpeg_segments.split(encoded(mode, progressive=progressive))
  assert parts.size == (300, 7) and parts.working_bytes == working


def test_only_metadata_are_taken_out():
  plain, comment = encoded(), b'\xff\xfe\0\5abc'
  unknown = b'\xff\xe5\0\5abc'  # an application segment of no known name
  with_exif = encoded(exif=b'Exif\0\0MM\0*' + bytes(20))
  assert jpeg_segments.split(plain).data == plain
  found = jpeg_segments.split(with_exif[:2] + comment + unknown + with_exif[2:])
  assert b'Exif' not in found.data
  assert Image.open(io.BytesIO(found.data)).size == (300, 7)
  assert (
    found.data[found.data.index(b'\xff\xda') :]
    == (plain[plain.index(b'\xff\xda') :])
  )


@pytest.mark.parametrize('missing', [0, 1, 3])
def test_a_file_that_ends_in_a_segment_has_the_size_read_so_far(missing):
  data = encoded()
  frame = data.index(b'\xff\xc0')
  length = 2 + struct.unpack_from('>H', data, frame + 2)[0]
  cut = data[: frame + length - missing]
  assert jpeg_segments.split(cut).size == (300, 7)
  assert jpeg_segments.split(data[:frame]).size is None
