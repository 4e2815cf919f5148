"""Cropping and resizing, against NumPy and TensorFlow."""

import io

import numpy as np
import pytest
from PIL import Image
from support.oracles import oracle

from cdm.data import image_decoder, transforms


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


def adm(picture, size):
  """guided-diffusion, image_datasets.py, center_crop_arr: step by step."""
  picture = picture.convert('RGB')
  while min(*picture.size) >= 2 * size:
    half = tuple(x // 2 for x in picture.size)
    picture = picture.resize(half, resample=Image.BOX)
  scale = size / min(*picture.size)
  new = tuple(round(x * scale) for x in picture.size)
  array = np.array(picture.resize(new, resample=Image.BICUBIC))
  y, x = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
  return array[y : y + size, x : x + size]


def edm(picture, size):
  """edm, dataset_tool.py --transform=center-crop: step by step."""
  array = np.array(picture.convert('RGB'))
  side, (h, w) = np.min(array.shape[:2]), array.shape[:2]
  array = array[
    (h - side) // 2 : (h + side) // 2, (w - side) // 2 : (w + side) // 2
  ]
  square = Image.fromarray(array)
  return np.array(square.resize((size, size), Image.LANCZOS))


def downsampled_imagenet(picture, size):
  """Imagenet32_Scripts, image_resizer_imagenet.py, -a box: step by step."""
  if picture.mode != 'RGB':
    picture = picture.convert(mode='RGB')
  return np.array(picture.resize((size, size), Image.BOX))


def by_program(picture, size, name):
  """Each name of a program, with the steps that its code takes."""
  return {
    'center box_then_bicubic': adm,
    'center center_crop_dhariwal': adm,
    'center lanczos': edm,
    'squash box': downsampled_imagenet,
  }[name](picture, size)


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize(
  ('shape', 'size'),
  [
    ((375, 500), 64),  # of ImageNet; halved twice
    ((333, 256), 32),
    ((257, 129), 64),  # odd, and just beyond a factor of 2
    ((128, 128), 64),
    ((127, 255), 64),  # not halved
    ((65, 64), 64),  # only cut
    ((64, 64), 64),
    ((41, 30), 64),  # enlarged
    ((7, 1000), 5),
  ],
)
@pytest.mark.parametrize(
  'name',
  [
    'center box_then_bicubic',
    'center center_crop_dhariwal',
    'center lanczos',
    'squash box',
  ],
)
def test_filters_of_public_programs_give_their_bytes(name, shape, size, mode):
  rng = np.random.default_rng(size)
  pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
  picture = Image.fromarray(pixels).convert(mode)
  data = io.BytesIO()
  picture.save(data, 'PNG')
  ours = image_decoder.decode(data.getvalue(), name='x').pixels
  crop, filter = name.split()
  transforms.check_fit(size=size, crop=crop, filter=filter)
  found = transforms.fit(ours, size=size, crop=crop, filter=filter)
  np.testing.assert_array_equal(found, by_program(picture, size, name))


def test_a_random_crop_of_box_then_bicubic_is_cut_from_the_resized_image():
  image = np.random.default_rng(0).integers(0, 256, (38, 86, 3), np.uint8)
  whole = np.array(
    Image.fromarray(image)
    .resize((43, 19), Image.BOX)
    .resize((23, 10), Image.BICUBIC)
  )
  places = {whole[:, x : x + 10].tobytes() for x in range(14)}
  rng = np.random.default_rng(0)
  fit = {'size': 10, 'crop': 'random', 'filter': 'box_then_bicubic'}
  seen = {transforms.fit(image, rng=rng, **fit).tobytes() for _ in range(200)}
  assert seen == places


def test_squashing_by_area_is_the_mean_of_the_whole_image():
  image = gradient(31, 45)
  found = transforms.fit(image, size=7, crop='squash')
  assert np.abs(found - area_mean(image, 7, 7)).max() <= 0.5 + 1e-9


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
    (
      {'crop': 'squash', 'filter': 'center_crop_dhariwal'},
      "keeps the shape .* Use crop='center'",
    ),
  ],
)
def test_unknown_crops_and_filters_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    transforms.check_fit(
      **{'size': 8, 'crop': 'none', 'filter': 'area'} | change
    )


@pytest.mark.parametrize(
  ('shape', 'short_side', 'size', 'resized'),
  [
    ((10, 15), 8, 6, (8, 12)),
    ((15, 10), 8, 6, (12, 8)),
    ((7, 9), 4, 3, (4, 5)),  # 5.14 is cut; offsets 0.5 and 1 become 0 and 1
    ((8, 12), 8, 5, (8, 12)),  # as it is; offsets 1.5 and 3.5 become 2 and 4
    ((8, 8), 8, 8, (8, 8)),
  ],
)
def test_the_crop_of_imagenet_is_of_the_resized_shorter_side(
  shape, short_side, size, resized
):
  """By hand, as torchvision's Resize and CenterCrop do it."""
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
  h, w = resized
  whole = np.asarray(
    Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
  )
  top, left = (int(np.rint((n - size) / 2)) for n in resized)
  found = transforms.resize_crop(image, short_side=short_side, size=size)
  np.testing.assert_array_equal(
    found, whole[top : top + size, left : left + size]
  )
  assert found.flags['C_CONTIGUOUS']
