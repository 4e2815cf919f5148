"""Low-res inputs: where their filters sample, and how much is degraded."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cdm.data import low_res_inputs
from cdm.data.low_res_inputs import CLEAN, Degradation


def smooth_picture(size=96, seed=0):
  rng = np.random.default_rng(seed)
  x = ndimage.gaussian_filter(rng.standard_normal((size, size, 3)), (6, 6, 0))
  return low_res_inputs.to_uint8(128 + 400 * x)


def grey(level=100, size=64):
  return np.full((size, size, 3), level, np.uint8)


@pytest.mark.parametrize('name', low_res_inputs.FILTERS)
@pytest.mark.parametrize('size', [24, 32, 43, 64, 96])
def test_every_filter_leaves_the_picture_in_its_place(name, size):
  """A ramp stays the ramp, sampled in the middle of each low-res pixel."""
  ramp = 40 + 1.5 * (np.arange(96) + 0.5)
  image = np.tile(np.round(ramp)[None, :, None], (96, 1, 3)).astype(np.uint8)
  low = low_res_inputs.shrink_by(name, image, size)
  assert low.shape == (size, size, 3) and low.dtype == np.uint8
  expected = 40 + 1.5 * (np.arange(size) + 0.5) * 96 / size
  inner = np.s_[:, size // 6 : -(size // 6)]
  error = low.astype(float)[inner] - expected[None, :, None][inner]
  assert np.abs(error).max() <= 1.3 and abs(error.mean()) < 0.3


@pytest.mark.parametrize('name', low_res_inputs.FILTERS)
def test_rows_and_columns_are_treated_alike(name):
  image = smooth_picture()
  low = low_res_inputs.shrink_by(name, image, 32).astype(int)
  turned = low_res_inputs.shrink_by(name, image.transpose(1, 0, 2), 32)
  assert np.abs(low - turned.transpose(1, 0, 2)).max() <= 1


def test_the_reflected_bicubic_is_pillows_inside_and_matlabs_at_the_border():
  image = smooth_picture()
  ours = low_res_inputs.shrink_by('reflected', image, 24).astype(int)
  pillow = Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC)
  inner = np.s_[2:-2, 2:-2]
  assert np.abs(ours - np.asarray(pillow))[inner].max() <= 1
  # The border pixel repeated, as imresize does: the same as shrinking the
  # picture with its mirror images around it.
  around = np.pad(image, ((96, 96), (96, 96), (0, 0)), mode='symmetric')
  large = Image.fromarray(around).resize((72, 72), Image.Resampling.BICUBIC)
  assert np.abs(ours - np.asarray(large)[24:48, 24:48]).max() <= 1


def test_a_gaussian_weighs_pixels_as_a_gaussian_does():
  """The answer to one bright pixel is the kernel, whose sum is one."""
  image = np.zeros((64, 64, 3), np.uint8)
  image[30, 33] = 255
  low = low_res_inputs.shrink_by('gaussian', image, 16, sigma=0.5)
  y, x = (np.arange(16) + 0.5) * 4, (np.arange(16) + 0.5) * 4
  k_y, k_x = (
    np.exp(-0.5 * ((c - at) / 2.0) ** 2) / (2.0 * np.sqrt(2 * np.pi))
    for c, at in ((y, 30.5), (x, 33.5))
  )
  expected = 255 * k_y[:, None] * k_x
  np.testing.assert_allclose(low[..., 0], expected, atol=0.6)


def test_noise_has_the_strength_that_its_level_tells():
  rng = np.random.default_rng(0)
  for is_grey in (False, True):
    degradation = Degradation(noise=4.0, is_grey=is_grey)
    low = low_res_inputs.degrade(grey(size=256), degradation, rng)
    error = low.astype(float) - 100
    # Rounding adds 1/12.
    assert error.std() == pytest.approx(np.sqrt(16 + 1 / 12), rel=0.02)
    same = (low[..., 0] == low[..., 1]).all()
    assert same == is_grey
  level = low_res_inputs.levels(4.0, Degradation(noise=3.0))
  np.testing.assert_array_equal(level, np.float32([2.0, 0.5, 0.0, 0.0]))


def test_the_variance_of_poisson_noise_grows_with_the_level():
  rng = np.random.default_rng(0)
  degradation = Degradation(noise=4.0, is_poisson=True)
  for level in (40, 160):
    low = low_res_inputs.degrade(grey(level, 256), degradation, rng)
    variance = low.astype(float).var() - 1 / 12
    assert variance == pytest.approx(16 * level / 127.5, rel=0.03)


def test_blur_is_scipys_gaussian_and_comes_before_the_noise():
  image = smooth_picture()
  degradation = Degradation(blur=1.0)
  rng = np.random.default_rng(0)
  low = low_res_inputs.degrade(image, degradation, rng)
  blurred = ndimage.gaussian_filter(
    image.astype(float), (1.0, 1.0, 0), mode='mirror'
  )
  assert np.abs(low - blurred).max() < 1.0
  noisy = low_res_inputs.degrade(
    grey(), Degradation(blur=1.2, noise=6.0), rng
  ).astype(float)
  # Noise that was blurred would have neighbours alike.
  assert (
    abs(np.corrcoef(noisy[:, 1:].ravel(), noisy[:, :-1].ravel())[0, 1]) < 0.1
  )


def test_jpeg_is_pillows_of_that_quality_and_comes_last():
  image = smooth_picture()
  rng = np.random.default_rng(0)
  low = low_res_inputs.degrade(image, Degradation(quality=60), rng)
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=60, subsampling='4:2:0')
  np.testing.assert_array_equal(low, Image.open(file))
  assert low_res_inputs.levels(1.0, Degradation(quality=60))[2] == np.float32(
    0.8
  )


def test_a_clean_input_is_untouched_and_all_its_levels_are_zero():
  image, rng = smooth_picture(), np.random.default_rng(0)
  np.testing.assert_array_equal(
    low_res_inputs.degrade(image, CLEAN, rng), image
  )
  assert not low_res_inputs.levels(1.0, CLEAN).any()


def test_degradations_are_drawn_as_mild_as_they_are_said_to_be():
  rng = np.random.default_rng(0)
  drawn = [low_res_inputs.draw(rng, 0.5) for _ in range(4000)]
  degraded = [d for d in drawn if d != CLEAN]
  assert len(degraded) / len(drawn) == pytest.approx(0.5, abs=0.03)
  for values, least, most in (
    ([d.blur for d in degraded if d.blur], 0.0, 1.2),
    ([d.noise for d in degraded if d.noise], 0.0, 6.0),
    ([d.quality for d in degraded if d.quality], 50, 95),
  ):
    assert len(values) / len(degraded) == pytest.approx(0.75, abs=0.04)
    assert least <= min(values) and max(values) <= most
    assert np.mean(values) == pytest.approx((least + most) / 2, rel=0.05)
  for flag in ('is_poisson', 'is_grey'):
    share = np.mean([getattr(d, flag) for d in degraded])
    assert share == pytest.approx(0.5, abs=0.04)


def test_damage_is_read_as_a_user_gives_it():
  parse = low_res_inputs.parse
  assert parse('none') == low_res_inputs.CLEAN
  found = parse('jpeg=60,noise=3.5,blur=0.4')
  assert found == Degradation(blur=0.4, noise=3.5, quality=60)
  assert parse('jpeg=100') == low_res_inputs.CLEAN
  said = 'blur of 0.4 pixels, noise of 3.5 grey levels, JPEG quality 60'
  assert low_res_inputs.described(found) == said
  assert not low_res_inputs.described(low_res_inputs.CLEAN)


@pytest.mark.parametrize(
  'text, told',
  [
    ('noise', "'noise' is no damage; give none, or some of"),
    ('dust=3', "'dust=3' is no damage"),
    ('noise=3,,', 'is no damage'),
    ('noise=nan', 'noise=nan: networks learn noise from 0 to 6'),
    ('blur=2', 'blur=2: networks learn blur from 0 to 1.2'),
  ],
)
def test_other_damage_is_refused(text, told):
  with pytest.raises(ValueError, match=re.escape(told)):
    low_res_inputs.parse(text)
