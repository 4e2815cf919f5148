"""Noise is told from texture, and JPEG from its tables."""

import numpy as np
import pytest

from cdm.data.photographs import visible_damage


def gradient(size=256):
  """-> float [size, size, 3], smooth, in the middle of the grey levels."""
  y, x = np.mgrid[:size, :size] / size
  return np.dstack([60 + 120 * x, 80 + 90 * y, 128 + 40 * np.sin(5 * x)])


def levels(x, dtype=np.uint8):
  most = np.iinfo(dtype).max
  return np.clip(np.round(x * (most / 255)), 0, most).astype(dtype)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('sigma', [0.0, 1.0, 2.0, 5.0])
def test_the_deviation_of_noise_is_found(sigma, dtype):
  noise = np.random.default_rng(0).normal(0, sigma, (256, 256, 3))
  found = visible_damage.estimate(levels(gradient() + noise, dtype)).noise
  # Rounding to 8 bits adds a deviation of 0.29.
  expected = np.hypot(sigma, 0.29 if dtype == np.uint8 and sigma else 0)
  assert found == pytest.approx(expected, rel=0.08, abs=0.25)


def test_noise_is_found_in_the_quiet_part_of_a_picture():
  rng = np.random.default_rng(0)
  x = gradient()
  x[:, 160:] += rng.normal(0, 30, (256, 96, 3))  # texture
  noisy = x + rng.normal(0, 3, x.shape)
  assert visible_damage.estimate(levels(x)).noise < 0.3
  assert visible_damage.estimate(levels(noisy)).noise == pytest.approx(3, 0.1)


def test_texture_of_changing_strength_is_no_noise():
  rng = np.random.default_rng(0)
  strength = np.linspace(2, 30, 256)[:, None, None]
  x = 128 + strength * rng.normal(0, 1, (256, 256, 3))
  assert visible_damage.estimate(levels(x)).noise == 0


def test_noise_counts_as_the_strongest_that_networks_learn():
  noise = np.random.default_rng(0).normal(0, 20, (256, 256, 3))
  assert visible_damage.estimate(levels(gradient() + noise)).noise == 6


def test_a_grey_picture_and_a_tiny_one_have_an_answer():
  noise = np.random.default_rng(0).normal(0, 4, (256, 256, 3))
  grey = levels(gradient() + noise)[..., :1]
  assert visible_damage.estimate(grey).noise == pytest.approx(4, 0.1)
  assert visible_damage.estimate(grey[:1, :1]).noise == 0


@pytest.mark.parametrize(
  'quality, told', [(None, None), (100, None), (75, 75), (20, 50)]
)
def test_the_quality_is_that_of_the_tables(quality, told):
  x = levels(gradient(16))
  assert visible_damage.estimate(x, quality).quality == told
