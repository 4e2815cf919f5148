"""Videos are known by their bytes, and pictures are none."""

import pytest

from cdm.data.videos import video_kinds


def box(brand, size=24):
  return size.to_bytes(4, 'big') + b'ftyp' + brand + b'\0' * 300


@pytest.mark.parametrize(
  'data, kind',
  [
    (box(b'isom'), 'MP4'),
    (box(b'mp42'), 'MP4'),
    (box(b'qt  '), 'QuickTime'),
    (b'\0\0\0\x08wide\0\0\x10\0mdat' + bytes(99), 'QuickTime'),
    (b'\x1aE\xdf\xa3\x9fB\x86\x81\1B\x82\x84webm' + bytes(99), 'WebM'),
    (b'\x1aE\xdf\xa3\x9fB\x86\x81\1B\x82\x88matroska' + bytes(99), 'Matroska'),
    (b'RIFF\0\0\0\0AVI LIST', 'Matroska'),
    (b'\0\0\1\xba!' + bytes(99), 'Matroska'),
    ((b'\x47' + bytes(187)) * 9, 'Matroska'),
    ((bytes(4) + b'\x47' + bytes(187)) * 9, 'Matroska'),
    (b'YUV4MPEG2 W64 H48 F25:1\n', 'Matroska'),
    (b'OggS' + bytes(24) + b'\x80theora', 'Matroska'),
    (b'OggS' + bytes(24) + b'\x01vorbis', None),
    (b'RIFF\0\0\0\0WEBPVP8 ', None),
    (box(b'avif'), None),
    (box(b'heic'), None),
    (box(b'M4A '), None),
    (box(b'crx '), None),
    (b'\x89PNG\r\n\x1a\n', None),
    (b'\xff\xd8\xff\xe0', None),
    (b'', None),
    (b'text', None),
  ],
)
def test_the_first_bytes_tell(tmp_path, data, kind):
  path = tmp_path / 'a.jpg'
  path.write_bytes(data)
  found = video_kinds.kind_of(path)
  assert (None if found is None else found.name) == kind


def test_a_result_keeps_its_suffix_if_it_can(tmp_path):
  of = video_kinds.suffix_of
  assert of(tmp_path / 'a.M4V', video_kinds.MP4) == '.M4V'
  assert of(tmp_path / 'a.mp4', video_kinds.MATROSKA) == '.mkv'
  assert video_kinds.kind_of(tmp_path) is None
  assert video_kinds.kind_of(tmp_path / 'none') is None
