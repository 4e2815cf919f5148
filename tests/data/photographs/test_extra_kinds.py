"""HEIC, JPEG XL and RAW are found by content and read by optional packages."""

import io
import struct
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from cdm.data import transforms
from cdm.data.image_parts import Unreadable
from cdm.data.photographs import extra_kinds, jxl_size, photograph

# The first bytes of files of 30x20 pixels that libjxl wrote.
JXL = bytes.fromhex('ff0a9840100908000100710f4b384175')
HEIC = b'\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf' + bytes(40)


def raw():
  """-> the beginning of a DNG file."""
  file = io.BytesIO()
  tags = [(50706, 1, 4, (1, 4, 0, 0), True)]
  tifffile.imwrite(file, np.zeros((4, 4), np.uint8), extratags=tags)
  return file.getvalue()


def test_kinds_are_found_by_content():
  box = b'\0\0\0\x0cJXL \r\n\x87\n'
  assert extra_kinds.kind_of(JXL).name == 'JPEG XL'
  assert extra_kinds.kind_of(box + bytes(20)).name == 'JPEG XL'
  assert extra_kinds.kind_of(HEIC).name == 'HEIC'
  mif1 = b'\0\0\0\x18ftypmif1\0\0\0\0mif1heix'
  assert extra_kinds.kind_of(mif1).name == 'HEIC'
  assert extra_kinds.kind_of(raw()).name == 'camera RAW'
  for head in (b'FUJIFILMCCD-RAW', b'IIRO', b'II*\0\x10\0\0\0CR\2\0'):
    assert extra_kinds.kind_of(head + bytes(9)).name == 'camera RAW'


def test_other_kinds_are_none_of_these():
  file = io.BytesIO()
  tifffile.imwrite(file, np.zeros((4, 4), np.uint8))
  avif = b'\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf'
  for data in (file.getvalue(), avif, b'', b'\xff\xd8\xff', b'II*\0\xff'):
    assert extra_kinds.kind_of(data) is None


@pytest.mark.parametrize(
  'module, data',
  [('pillow_heif', HEIC), ('pillow_jxl', JXL), ('rawpy', raw())],
)
def test_without_the_package_the_command_is_named(monkeypatch, module, data):
  monkeypatch.setitem(sys.modules, module, None)
  monkeypatch.delitem(
    sys.modules, 'pillow_jxl.JpegXLImagePlugin', raising=False
  )
  with pytest.raises(transforms.UnusableImage, match=r'install .*cdm\[formats'):
    photograph.decode(data, name='x')


def test_the_size_of_jpeg_xl_is_known_before_it_is_decoded():
  assert jxl_size.of(JXL) == (30, 20)
  box = struct.pack('>I4s', 12, b'JXL ') + b'\r\n\x87\n'
  part = struct.pack('>I4sI', 12 + len(JXL), b'jxlp', 0) + JXL
  assert jxl_size.of(box + part) == (30, 20)
  # Small: five bits of the height less one in eights, and 3 of the ratio 1:1.
  small = (1 | 7 << 1 | 1 << 6).to_bytes(2, 'little')
  assert jxl_size.of(b'\xff\x0a' + small + bytes(10)) == (64, 64)
  for torn in (b'\xff\x0a', box, box + b'\0\0\0\0abcd'):
    with pytest.raises(Unreadable):
      jxl_size.of(torn)


def test_heic_is_read_with_all_its_bits():
  heif = pytest.importorskip('pillow_heif', reason='the extra formats')
  y, x = np.mgrid[:32, :64]
  grey = (600 * (x + y)).astype(np.uint16)
  samples = np.stack([grey] * 3, axis=-1)
  file = io.BytesIO()
  heif.encode('RGB;16', (64, 32), samples.tobytes(), file, quality=-1)
  found = photograph.decode(file.getvalue(), name='x')
  assert found.kind == 'HEIC' and found.samples.dtype == np.uint16
  assert np.abs(found.samples.astype(int) - samples).max() < 200  # ten bits
  with pytest.raises(transforms.UnusableImage, match='64x32 pixels'):
    photograph.decode(file.getvalue(), name='x', max_pixels=2047)
  with pytest.raises(transforms.BadImage, match='HEIC file is damaged'):
    photograph.decode(HEIC, name='x')


def test_heic_is_turned_once():
  heif = pytest.importorskip('pillow_heif', reason='the extra formats')
  image = Image.new('RGB', (64, 32))
  image.paste((255, 255, 255), (0, 0, 32, 32))
  exif = Image.Exif()
  exif[274] = 6
  file = io.BytesIO()
  heif.from_pillow(image).save(file, exif=exif.tobytes())
  found = photograph.decode(file.getvalue(), name='x')
  height, width = found.samples.shape[:2]
  assert (height, width) in ((32, 64), (64, 32))
  # The left half lies above after a turn to the right.
  first = found.samples[:8, :8] if width == 32 else found.samples[:, :8]
  assert first.min() > 200


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA'])
def test_jpeg_xl_is_read(mode):
  pytest.importorskip('pillow_jxl', reason='the extra formats')
  rng = np.random.default_rng(0)
  channels = len(mode) if mode != 'L' else 1
  samples = rng.integers(256, size=(20, 30, channels)).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(samples.squeeze()).save(file, 'JXL', lossless=True)
  found = photograph.decode(file.getvalue(), name='x')
  colours = samples[..., :-1] if 'A' in mode else samples
  np.testing.assert_array_equal(found.samples, colours)
  if 'A' in mode:
    np.testing.assert_array_equal(found.alpha, samples[..., -1])


@pytest.mark.parametrize('size', [(30, 20), (64, 64), (333, 1000), (160, 90)])
def test_the_size_of_jpeg_xl_is_that_of_its_encoder(size):
  pytest.importorskip('pillow_jxl', reason='the extra formats')
  for container in (False, True):
    file = io.BytesIO()
    Image.new('L', size).save(file, 'JXL', use_container=container)
    assert jxl_size.of(file.getvalue()) == size
