"""Decoding and resizing, against Pillow's encoders, NumPy and TensorFlow."""

import io

import numpy as np
import pytest
from PIL import Image
from support.oracles import oracle

from cdm.data import transforms


def encoded(image, kind='PNG', **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def gradient(height=20, width=30):
  y, x = np.mgrid[:height, :width]
  pixels = np.stack([8 * x, 12 * y, 4 * (x + y)], axis=-1)
  return pixels.astype(np.uint8)


def area_mean(image, rows, columns):
  """Float64 mean over each new pixel's area, by dense matrices of overlaps."""

  def overlaps(old, new):
    edge = np.arange(new + 1) * old / new
    left = np.maximum(edge[:-1, None], np.arange(old))
    right = np.minimum(edge[1:, None], np.arange(old) + 1)
    return np.clip(right - left, 0, None) * new / old

  by_row = overlaps(image.shape[0], rows)
  by_column = overlaps(image.shape[1], columns)
  by_row = np.einsum('yh,hwc->wyc', by_row, image.astype(float), optimize=True)
  return np.einsum('xw,wyc->yxc', by_column, by_row, optimize=True)


@pytest.mark.parametrize(
  ('image', 'stored', 'size'),
  [
    ('in/big256', 'tf/256to64/area', 64),
    ('in/m64', 'tf/64to16/area', 16),
    ('in/odd', 'tf/odd_to_64/area', 64),
  ],
)
def test_area_resize_is_tensorflows_rounded(image, stored, size):
  info, arrays = oracle('resize')
  mine = transforms.area_resize(arrays[image], (size, size))
  tol = 0.5 + info['keys'][stored]['tol']['atol']  # measured: 0.5 exactly
  np.testing.assert_allclose(mine, arrays[stored], rtol=0, atol=tol)


def test_enlarging_by_area_is_tensorflows_too():
  _, arrays = oracle('resize')
  mine = transforms.area_resize(arrays['in/m16'], (128, 128))
  np.testing.assert_array_equal(mine[::4, ::4], arrays['tf/16to128/area'])


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    ((7, 5), (3, 2)),
    ((64, 64), (8, 8)),  # by the short cut for powers of two
    ((96, 60), (32, 20)),
    ((37, 100), (32, 32)),
    ((500, 333), (64, 64)),
    ((5, 9), (16, 12)),  # enlarged
    ((2900, 2903), (3, 4)),  # sums beyond 32 bits
  ],
)
def test_area_resize_is_the_mean_over_the_area(old, new):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (*old, 3), dtype=np.uint8)
  mine = transforms.area_resize(image, new)
  assert mine.dtype == np.uint8 and mine.shape == (*new, 3)
  # Nothing but the final rounding to a grey level.
  error = np.abs(mine - area_mean(image, *new)).max()
  assert error <= 0.5 + 1e-9


@pytest.mark.parametrize(
  'shape',
  [(30, 50), (31, 45), (70002, 1)],  # the last sums to more than float32 holds
)
def test_an_exact_half_is_rounded_up_and_anything_less_down(shape):
  image = np.full((*shape, 2), 254, np.uint8)
  image[..., 0].flat[image[..., 0].size // 2 :] = 255  # half of them, or more
  image[..., 1].flat[image[..., 1].size // 2 + 1 :] = 255
  mean = transforms.area_resize(image, (1, 1))
  np.testing.assert_array_equal(mean, [[[255, 254]]])


def test_white_stays_white_at_any_size():
  image = np.full((301, 407, 3), 255, np.uint8)
  assert (transforms.area_resize(image, (64, 50)) == 255).all()


def test_the_centre_square_is_the_middle_of_the_image():
  image = gradient(height=21, width=31)
  square = transforms.fit(image, size=21)
  np.testing.assert_array_equal(square, image[:, 5:26])
  tall = transforms.fit(image.swapaxes(0, 1), size=21)
  np.testing.assert_array_equal(tall, image[:, 5:26].swapaxes(0, 1))


def test_random_squares_reach_both_ends():
  image = gradient(height=4, width=7)
  rng = np.random.default_rng(0)
  seen = {
    transforms.fit(image, size=4, crop='random', rng=rng)[0, 0, 0] // 8
    for _ in range(100)
  }
  assert seen == {0, 1, 2, 3}


def test_bicubic_is_pillows():
  _, arrays = oracle('resize')
  mine = transforms.fit(arrays['in/big256'], size=64, filter='bicubic')
  np.testing.assert_array_equal(mine, arrays['pil_uint8/256to64/bicubic'])


def test_no_crop_needs_the_exact_size():
  image = gradient(16, 16)
  assert transforms.fit(image, size=16, crop='none') is image
  with pytest.raises(ValueError, match='expects 32x32 .* has 16x16'):
    transforms.fit(image, size=32, crop='none')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'crop': 'middle'}, "crop is 'middle'; known crops are .*'center'"),
    ({'filter': 'cubic'}, "filter is 'cubic'; known filters are .*'bicubic'"),
    ({'size': 0}, 'image_size is 0'),
  ],
)
def test_unknown_crops_and_filters_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    transforms.check_fit(
      **{'size': 8, 'crop': 'none', 'filter': 'area'} | change
    )


# What EXIF 2.32, tag 274, says the viewer must do with the stored pixels.
ORIENTATIONS = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_exif_rotation_is_applied(orientation):
  exif = Image.Exif()
  exif[274] = orientation
  pixels = gradient()
  data = encoded(Image.fromarray(pixels), 'PNG', exif=exif)
  shown = transforms.decode(data, name='x')
  np.testing.assert_array_equal(shown, ORIENTATIONS[orientation](pixels))


def test_cmyk_jpegs_have_their_colours():
  patches = np.zeros((16, 48, 3), np.uint8)
  patches[:, :16], patches[:, 16:32, 0], patches[:, 32:, 2] = 255, 255, 255
  image = Image.fromarray(patches).convert('CMYK')
  shown = transforms.decode(encoded(image, 'JPEG', quality=95), name='x')
  assert shown.shape == (16, 48, 3)
  for x, colour in ((8, [255, 255, 255]), (24, [255, 0, 0]), (40, [0, 0, 255])):
    assert np.abs(shown[8, x].astype(int) - colour).max() <= 6


def test_palettes_and_bilevel_images_become_rgb():
  pixels = np.zeros((6, 8), np.uint8)
  pixels[:, 4:] = 1
  image = Image.fromarray(pixels)
  image.putpalette([10, 20, 30, 200, 100, 50])
  shown = transforms.decode(encoded(image), name='x')
  np.testing.assert_array_equal(shown[0, 0], [10, 20, 30])
  np.testing.assert_array_equal(shown[0, 7], [200, 100, 50])
  bilevel = Image.fromarray(pixels.astype(bool))
  shown = transforms.decode(encoded(bilevel), name='x')
  np.testing.assert_array_equal(np.unique(shown), [0, 255])


def test_grey_images_have_three_equal_channels():
  shown = transforms.decode(
    encoded(Image.fromarray(gradient()[..., 0])), name='x'
  )
  np.testing.assert_array_equal(shown, gradient()[..., [0, 0, 0]])


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bit_grey_is_scaled_not_clipped(kind):
  values = np.linspace(0, 65535, 600).round().astype(np.uint16).reshape(20, 30)
  data = encoded(Image.fromarray(values), kind)
  shown = transforms.decode(data, name='x')
  np.testing.assert_array_equal(shown[..., 0], np.rint(values / 257))


def test_transparency_is_laid_over_white():
  pixels = np.dstack([gradient(), np.full((20, 30), 255, np.uint8)])
  pixels[:, :10, 3], pixels[:, 10:20, 3] = 0, 51  # a fifth
  shown = transforms.decode(encoded(Image.fromarray(pixels)), name='x')
  opaque = np.array([0, 0.2, 1]).repeat(10)[:, None]
  expected = opaque * gradient() + (1 - opaque) * 255
  np.testing.assert_allclose(shown, expected, atol=1)


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG'])
def test_of_an_animation_the_first_frame_is_taken(kind):
  frames = [Image.new('RGB', (12, 10), c) for c in ('red', 'lime', 'blue')]
  options = {'save_all': True, 'append_images': frames[1:]}
  if kind == 'WEBP':
    options['lossless'] = True
  shown = transforms.decode(encoded(frames[0], kind, **options), name='x')
  assert (shown == [255, 0, 0]).all() and shown.shape == (10, 12, 3)


def truncated(kind):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(noise), kind)
  return data[: len(data) * 2 // 3]


@pytest.mark.parametrize(
  ('data', 'reason'),
  [
    (truncated('JPEG'), 'truncated'),
    (truncated('PNG'), ''),
    (truncated('WEBP'), ''),
    (b'', 'cannot identify'),
    (b'GIF89a, or so it says', ''),
    (encoded(Image.new('RGB', (1, 1))), '1x1 pixels are not an image'),
    (encoded(Image.new('RGB', (9, 1))), '9x1 pixels'),
    (encoded(Image.new('F', (8, 8)), 'TIFF'), 'range .* unknown'),
  ],
  ids=['jpeg', 'png', 'webp', 'empty', 'text', '1x1', '9x1', 'float'],
)
def test_unusable_files_are_named_with_their_reason(data, reason):
  with pytest.raises(transforms.BadImage, match=f'cats/7.jpg: .*{reason}'):
    transforms.decode(data, name='cats/7.jpg')
