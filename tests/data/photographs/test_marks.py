"""A file that cdm wrote is known again; one that was changed is not."""

import struct

import numpy as np
import pytest
from PIL import Image

from cdm.data.photographs import marks, picture_writer
from cdm.data.photographs.output_kinds import Layout

NAMES = ('a.png', 'a.jpg', 'a.tif', 'a.webp', 'a.avif', 'a.bmp')
MARK = 'f' * 64


def written(path, mark):
  y, x = np.mgrid[:40, :30]
  rows = np.stack([6 * y, 8 * x, 3 * (x + y)], -1).astype(np.uint8)
  layout = Layout(30, 40, 3, 8)
  with picture_writer.open_writer(path, layout, mark=mark) as file:
    file.write(rows)
  with Image.open(path) as opened:
    opened.load()
    return np.asarray(opened)


@pytest.mark.parametrize('name', NAMES)
def test_a_file_is_known_again_by_its_mark(tmp_path, name):
  path = tmp_path / name
  pixels = written(path, MARK)
  assert marks.has(path, MARK) and not marks.has(path, 'e' * 64)
  plain = tmp_path / f'plain-{name}'
  np.testing.assert_array_equal(pixels, written(plain, None))
  assert not marks.has(plain, MARK)
  data = path.read_bytes()
  for cut in (1, 20):
    path.write_bytes(data[:-cut])
    assert not marks.has(path, MARK)
  assert not marks.has(tmp_path, MARK)
  assert not marks.has(tmp_path / 'none', MARK)


def test_a_mark_is_a_part_of_its_file(tmp_path):
  """Sizes and checksums of the format count it."""
  for name in NAMES:
    written(tmp_path / name, MARK)
  webp = (tmp_path / 'a.webp').read_bytes()
  assert struct.unpack_from('<I', webp, 4)[0] == len(webp) - 8
  with Image.open(tmp_path / 'a.png') as opened:
    opened.load()
    assert opened.text['cdm'] == MARK
  jpeg = (tmp_path / 'a.jpg').read_bytes()
  at = jpeg.index(b'cdm\0')
  length = struct.unpack_from('>H', jpeg, at - 2)[0]
  assert jpeg[at - 4 : at - 2] == b'\xff\xfe'
  assert jpeg[at - 2 + length :] == b'\xff\xd9'
