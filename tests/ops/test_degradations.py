"""Degradations do what their definitions say, to the grey level."""

import numpy as np
import pytest
from PIL import Image

from cdm.ops import blur, pixels, resize
from cdm.ops import degradations as d

RNG = np.random.default_rng(0)
ORIGINAL = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
LOW = np.asarray(resize.resize_uint8(ORIGINAL, 16, method='area'))
GREY = np.full((48, 48, 3), 128, np.uint8)


def degrade(name, value, low=LOW, original=ORIGINAL, seed=0, number=7):
  return d.degrade(
    name, value, low=low, original=original, seed=seed, number=number
  )


@pytest.mark.parametrize('name', d.KINDS)
def test_every_strength_is_uint8_of_the_size_of_the_input(name):
  for value in d.KINDS[name].values:
    found = degrade(name, value)
    assert found.dtype == np.uint8 and found.shape == LOW.shape
    np.testing.assert_array_equal(found, degrade(name, value))
  assert len(d.KINDS[name].values) >= 5


@pytest.mark.parametrize('name', ['noise', 'blur', 'jpeg', 'contrast'])
def test_a_stronger_degradation_is_farther_from_the_input(name):
  low = np.asarray(Image.fromarray(LOW).resize((32, 32)))
  far = [
    np.abs(degrade(name, value, low=low).astype(float) - low).mean()
    for value in d.KINDS[name].values
  ]
  assert sorted(far) == far and far[0] < far[-1]


@pytest.mark.parametrize('sigma', [2.0, 10.0, 20.0])
def test_noise_has_its_sigma_in_grey_levels(sigma):
  """Rounding adds 1/12 to the variance."""
  error = degrade('noise', sigma, low=GREY) - 128.0
  assert error.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.02)
  assert abs(error.mean()) < 4 * sigma / np.sqrt(error.size)


def test_noise_follows_seed_and_number_and_all_strengths_share_it():
  one, other = degrade('noise', 5.0, low=GREY), degrade('noise', 10.0, low=GREY)
  np.testing.assert_allclose(other - 128.0, 2 * (one - 128.0), atol=1.51)
  again = degrade('noise', 5.0, low=GREY, number=8)
  third = degrade('noise', 5.0, low=GREY, seed=1)
  for x in (again, third):
    assert abs(np.corrcoef(x.ravel(), one.ravel())[0, 1]) < 0.05


def test_noise_does_not_wrap_around():
  dark, light = (np.full((32, 32, 3), n, np.uint8) for n in (0, 255))
  assert degrade('noise', 10.0, low=dark).max() < 60
  assert degrade('noise', 10.0, low=light).min() > 195


def test_blur_of_a_point_is_the_gaussian():
  point = np.zeros((33, 33, 1))
  point[16, 16] = 1.0
  for sigma in (0.6, 1.2, 2.0):
    x = np.arange(33) - 16.0
    bell = np.exp(-(x**2) / (2 * sigma**2))
    bell[np.abs(x) > np.floor(4 * sigma + 0.5)] = 0.0
    bell /= bell.sum()
    found = d.blur(point, sigma)[..., 0]
    np.testing.assert_allclose(found, np.outer(bell, bell), atol=1e-12)


def test_blur_is_the_blur_of_training_with_more_taps():
  x = pixels.to_float(LOW)[None]
  found = blur.gaussian_blur(x, np.float32([0.8]), size=7)[0]
  expected = (np.asarray(found, float) + 1) * 127.5
  np.testing.assert_allclose(d.blur(LOW, 0.8), expected, atol=1e-3)


def test_a_flat_picture_has_nothing_to_blur():
  for sigma in d.KINDS['blur'].values:
    np.testing.assert_array_equal(degrade('blur', sigma, low=GREY), GREY)


def test_jpeg_halves_the_resolution_of_colour_and_follows_its_quality():
  luma_only = np.repeat(LOW.mean(axis=2, keepdims=True), 3, 2).astype(np.uint8)
  kept = degrade('jpeg', 100.0, low=luma_only)
  assert np.abs(kept.astype(float) - luma_only).max() <= 3
  # Columns of one luma, their colours in turn: 4:2:0 has one colour for two.
  striped = np.zeros((16, 16, 3), np.uint8)
  striped[:, ::2], striped[:, 1::2] = (130, 100, 100), (91, 120, 100)
  found = degrade('jpeg', 100.0, low=striped).astype(float)
  assert np.abs(found[:, ::2, 0] - found[:, 1::2, 0]).mean() < 8  # of 39


def test_brightness_and_contrast_are_their_formulas():
  levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
  x = np.arange(256)
  shifted = degrade('brightness', 32.0, low=levels)[..., 0].ravel()
  np.testing.assert_array_equal(shifted, np.minimum(x + 32, 255))
  darker = degrade('brightness', -300 / 6, low=levels)[..., 0].ravel()
  np.testing.assert_array_equal(darker, np.maximum(x - 50, 0))
  paler = degrade('contrast', 0.6, low=levels)[..., 0].ravel()
  assert (paler[0], paler[255], paler[127], paler[128]) == (51, 204, 127, 128)
  np.testing.assert_allclose(paler, 51 + 0.6 * x, atol=0.5)


def test_a_photometric_change_is_taken_back_but_for_what_was_clipped():
  back = d.undo('brightness', 32.0, degrade('brightness', 32.0))
  np.testing.assert_array_equal(back, np.minimum(LOW, 223))
  for factor in (0.3, 0.6, 0.9):
    back = d.undo('contrast', factor, degrade('contrast', factor))
    assert np.abs(back - LOW.astype(float)).max() <= 0.5 / factor + 0.5
  for name in ('noise', 'blur', 'jpeg', 'kernel'):
    value = d.KINDS[name].values[0]
    np.testing.assert_array_equal(d.undo(name, value, LOW), LOW)


@pytest.mark.parametrize('name', ['bilinear', 'bicubic', 'lanczos3'])
def test_filters_are_pillows(name):
  how = getattr(Image.Resampling, name.upper().removesuffix('3'))
  expected = np.asarray(Image.fromarray(ORIGINAL).resize((16, 16), how))
  np.testing.assert_array_equal(degrade('kernel', name), expected)


def test_the_other_filters_are_means_picks_and_keys_four_taps():
  blocks = ORIGINAL.reshape(16, 4, 16, 4, 3).astype(float)
  area = degrade('kernel', 'area')
  np.testing.assert_allclose(area, blocks.mean(axis=(1, 3)), atol=0.5)
  nearest = degrade('kernel', 'nearest')
  np.testing.assert_array_equal(nearest, ORIGINAL[2::4, 2::4])
  # Halfway between two pixels Keys' kernel with a = -0.5 is (-1, 9, 9, -1)/16.
  keys = np.array([-1, 9, 9, -1]) / 16
  blocks = np.einsum('iajbc,b->iajc', blocks, keys)
  blocks = np.floor(np.clip(blocks, 0, 255) + 0.5)
  expected = np.clip(np.einsum('iajc,a->ijc', blocks, keys), 0, 255)
  np.testing.assert_allclose(degrade('kernel', 'aliased'), expected, atol=0.51)


def test_what_is_asked_for_is_all_some_or_own_strengths():
  every = d.parse((), own='area')
  assert list(every) == list(d.KINDS)
  assert 'area' not in every['kernel'] and len(every['kernel']) == 5
  found = d.parse(('noise=3,7.5', 'kernel', 'jpeg=25'), own='bicubic')
  assert found['noise'] == (3.0, 7.5) and found['jpeg'] == (25.0,)
  assert 'area' in found['kernel'] and 'bicubic' not in found['kernel']
  assert d.format_strength(7.5) == '7.5' and d.format_strength(20.0) == '20'


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (('nois',), "no degradation 'nois'; known are noise, blur"),
    (('noise=-1',), r'noise cannot have the strength -1\.0; give a sigma'),
    (('noise=a',), "'a' is not a strength of noise; give a sigma in grey"),
    (('noise=nan',), 'noise cannot have the strength nan'),
    (('jpeg=12.5',), 'jpeg cannot have the strength 12.5; give a whole'),
    (('contrast=1',), 'contrast cannot have the strength'),
    (('kernel=box',), 'kernel cannot have the strength box; give one of area'),
    (('blur', 'blur=1'), 'names blur twice'),
    (('blur=1,1',), '--degrade=blur=1,1 has a strength twice'),
    (('blur=',), "'' is not a strength of blur"),
  ],
)
def test_what_is_no_degradation_is_refused(words, message):
  with pytest.raises(ValueError, match=message):
    d.parse(words, own='area')
