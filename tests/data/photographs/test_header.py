"""The size of a picture is known before its pixels are decoded."""

import numpy as np
import pytest
from PIL import Image

from cdm.data.photographs import header, photograph
from cdm.data.transforms import BadImage


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
@pytest.mark.parametrize(
  'name', ['a.jpg', 'a.png', 'a.webp', 'a.tif', 'a.avif', 'a.gif', 'a.bmp']
)
def test_the_head_says_what_the_pixels_say(tmp_path, name, orientation):
  exif = Image.Exif()
  exif[274] = orientation
  image = Image.fromarray(np.zeros((5, 9, 3), np.uint8))
  image.save(tmp_path / name, exif=exif)
  found, read = header.look(tmp_path / name), photograph.read(tmp_path / name)
  assert (found.height, found.width) == read.samples.shape[:2]
  assert (found.kind, found.bits) == (read.kind, 8)
  assert header.kind_of(tmp_path / name) == read.kind


def test_bits_and_bare_anymaps(tmp_path):
  deep = Image.fromarray(np.zeros((2, 3), np.uint16))
  for name in ('a.png', 'a.tif'):
    deep.save(tmp_path / name)
    assert header.look(tmp_path / name).bits == 16
  Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / 'a.ppm')
  found = header.look(tmp_path / 'a.ppm')
  assert (found.height, found.width) == (2, 3)
  assert header.kind_of(tmp_path / 'a.ppm') == found.kind


@pytest.mark.parametrize('keep', [0, 3, 10, 20])
def test_what_is_no_picture_is_refused(tmp_path, keep):
  image = Image.fromarray(np.zeros((5, 9, 3), np.uint8))
  for name in ('a.jpg', 'a.png', 'a.webp', 'a.tif', 'a.avif', 'a.bmp'):
    path = tmp_path / name
    image.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadImage, match=name):
      header.look(path)
