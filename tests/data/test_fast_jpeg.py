"""simplejpeg changes the time that a JPEG file takes, and nothing else."""

import io
import types

import numpy as np
import pytest
from PIL import Image

from cdm.data import fast_jpeg, image_decoder, jpeg_segments, transforms

pytest.importorskip('simplejpeg')


def pixels_of(height, width):
  y, x = np.mgrid[:height, :width]
  smooth = np.stack([8 * x, 12 * y, 4 * (x + y)], axis=-1)
  noise = np.random.default_rng(0).integers(256, size=smooth.shape)
  return np.where((x // 5 + y // 4)[..., None] % 2, smooth, noise).astype('u1')


def encoded(shape=(20, 30), mode='RGB', **options):
  file = io.BytesIO()
  Image.fromarray(pixels_of(*shape)).convert(mode).save(file, 'JPEG', **options)
  return file.getvalue()


def outcome(data):
  try:
    return image_decoder.decode(data, name='x')
  except transforms.BadImage as error:
    return type(error), str(error)


def outcomes(data, monkeypatch):
  """-> what becomes of a file with simplejpeg, and without it."""
  with_it = outcome(data)
  with monkeypatch.context() as patch:
    patch.setattr(fast_jpeg, 'simplejpeg', None)
    without = outcome(data)
  return with_it, without


def assert_same(with_it, without):
  if isinstance(without, image_decoder.Decoded):
    assert with_it.notes == without.notes
    np.testing.assert_array_equal(with_it.pixels, without.pixels)
    assert not with_it.pixels.flags.writeable
    assert with_it.pixels.flags.c_contiguous
  else:
    assert with_it == without


@pytest.fixture
def fast(monkeypatch):
  """-> whether each file so far was decoded by simplejpeg."""
  found = []
  decode = fast_jpeg.decode

  def recorded(data, size):
    found.append((pixels := decode(data, size)) is not None)
    return pixels

  for sampling in fast_jpeg._SUBSAMPLING:  # before the samples are counted
    assert fast_jpeg.is_usable(sampling)
  monkeypatch.setattr(fast_jpeg, 'decode', recorded)
  return found


exif = Image.Exif()
exif[274] = 6


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'subsampling': '4:4:4'},
    {'subsampling': '4:2:2'},
    {'subsampling': '4:2:0', 'quality': 20},
    {'progressive': True},
    {'progressive': True, 'subsampling': '4:4:4', 'quality': 100},
    {'restart_marker_blocks': 2},
    {'keep_rgb': True},
    {'mode': 'L'},
    {'mode': 'L', 'progressive': True},
    {'exif': exif},
    {'icc_profile': bytes(200)},
    {'comment': b'of no meaning'},
  ],
  # The value of an option may be an object, whose text has its address.
  ids=lambda options: ' '.join(options) or 'nothing',
)
def test_common_files_are_decoded_fast_and_to_the_bytes_of_pillow(
  options, fast, monkeypatch
):
  for shape in ((2, 2), (3, 17), (16, 16), (45, 33), (61, 90)):
    data = encoded(shape, **options)
    with_it, without = outcomes(data, monkeypatch)
    assert_same(with_it, without)
    expected = Image.open(io.BytesIO(data)).convert('RGB')
    if options.get('exif') is not None:
      expected = expected.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(with_it.pixels, expected)
  assert fast == [True] * 5


def test_bytes_behind_the_image_do_not_matter(fast, monkeypatch):
  data = encoded()
  assert_same(*outcomes(data + b'\xff\xd8\xff junk', monkeypatch))
  assert_same(outcome(data + bytes(9)), outcome(data))
  assert all(fast)


def frame(data):
  return data.index(b'\xff\xc0')


def with_byte(data, at, value):
  return data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize('marker', sorted(jpeg_segments._FRAMES))
def test_only_huffman_codes_of_8_bits_are_decoded_fast(marker):
  """Pillow alone decides about arithmetic codes and the lossless kinds."""
  data = encoded()
  at = frame(data)
  sampling = jpeg_segments.split(with_byte(data, at + 1, marker)).sampling
  assert fast_jpeg.is_usable(sampling) == (marker in (0xC0, 0xC1, 0xC2))
  deep = with_byte(with_byte(data, at + 1, marker), at + 4, 12)
  assert jpeg_segments.split(deep).sampling is None


@pytest.mark.parametrize('sampling', [0x12, 0x41, 0x14, 0x33, 0x00, 0xFF])
def test_a_rare_subsampling_is_left_to_pillow(sampling, fast, monkeypatch):
  data = encoded()
  data = with_byte(data, frame(data) + 11, sampling)
  assert_same(*outcomes(data, monkeypatch))
  assert not fast


@pytest.mark.parametrize('progressive', [False, True])
def test_four_channels_are_left_to_pillow(progressive, fast, monkeypatch):
  data = encoded(mode='CMYK', progressive=progressive)
  assert_same(*outcomes(data, monkeypatch))
  # Adobe's transform 2 says that the channels are YCCK.
  at = data.index(b'Adobe') + 11
  assert_same(*outcomes(with_byte(data, at, 2), monkeypatch))
  assert not fast


def test_a_damaged_file_has_the_error_or_the_pixels_that_pillow_gives(
  monkeypatch,
):
  """Cut, changed, short of bytes, or with more: all as without simplejpeg."""
  rng = np.random.default_rng(0)
  seeds = [
    encoded(),
    encoded(subsampling='4:4:4', progressive=True),
    encoded(mode='L', restart_marker_blocks=1),
  ]
  seen = set()
  for i in range(600):
    data = seeds[i % 3]
    at = int(rng.integers(2, len(data)))
    extra = rng.bytes(int(rng.integers(1, 4)))
    damaged = (
      data[:at],
      data[:at] + extra + data[at + len(extra) :],
      data[:at] + data[at + len(extra) :],
      data[:at] + extra + data[at:],
    )[i // 3 % 4]
    with_it, without = outcomes(damaged, monkeypatch)
    assert_same(with_it, without)
    seen.add(type(without))
  assert seen == {tuple, image_decoder.Decoded}


@pytest.mark.parametrize('size', [(29, 20), (31, 20), (30, 19), (30, 21)])
def test_memory_is_taken_for_the_size_that_was_checked(size):
  """Even if another parser found another size than libjpeg-turbo does."""
  assert fast_jpeg.decode(encoded((20, 30)), size) is None
  assert fast_jpeg.decode(encoded((20, 30)), (30, 20)) is not None


def test_large_files_are_refused_before_they_are_decoded(fast):
  with pytest.raises(transforms.UnusableImage, match='more than the 599'):
    image_decoder.decode(encoded((20, 30)), name='x', max_pixels=599)
  assert not fast


def test_another_copy_of_the_library_that_differs_is_not_used(monkeypatch):
  real = fast_jpeg.simplejpeg
  data = encoded()
  expected = image_decoder.decode(data, name='x').pixels

  def other(data, *, buffer):
    pixels = real.decode_jpeg(data, buffer=buffer)
    pixels[-1, -1, -1] ^= 1
    return pixels

  stand_in = types.SimpleNamespace(decode_jpeg=other, __version__='0.1')
  monkeypatch.setattr(fast_jpeg, 'simplejpeg', stand_in)
  fast_jpeg._equals_pillow.cache_clear()
  try:
    with pytest.warns(UserWarning, match='0.1 does not decode as'):
      found = image_decoder.decode(data, name='x').pixels
    assert not fast_jpeg.is_usable(b'\x22\x11\x11')
  finally:
    fast_jpeg._equals_pillow.cache_clear()
  np.testing.assert_array_equal(found, expected)
