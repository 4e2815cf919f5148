"""The weave of squares on flat areas, on pictures whose spectrum is known."""

import numpy as np
import pytest

from cdm.evaluation.metrics import weave


def noise(seed=0, scale=1.0):
  rng = np.random.default_rng(seed)
  return 100 + scale * rng.standard_normal((256, 512))


def test_white_noise_has_no_weave():
  x = noise()
  power, count = weave.spectrum([x], [x])
  assert count == 256 * 8 + 512 * 4
  assert weave.weave(power) == pytest.approx(1.0, abs=0.08)
  # The power of white noise is that of the window: 3/8 of 64 samples.
  np.testing.assert_allclose(power[4:-4].mean(), 24.0, rtol=0.06)


def test_a_pattern_of_a_known_size_stands_out_by_its_power():
  """a cos(2 pi x / 4) has (a/2 sum w)^2 at 1/4, and noise has 3/8 L s^2."""
  x = noise(seed=1)
  a = 0.2
  woven = x + a * np.cos(2 * np.pi * np.arange(512) / 4)
  power, _ = weave.spectrum([woven], [x])
  # Rows alone have it.
  rows = 256 * 8 / (256 * 8 + 512 * 4)
  expected = 1 + rows * (a / 2 * 32) ** 2 / 24
  assert weave.weave(power) == pytest.approx(expected, rel=0.08)


def test_only_flat_segments_of_the_original_count():
  flat = noise(scale=0.5)
  rough = flat.copy()
  rough[:, 256:] += 50 * (np.arange(256) // 2 % 2)
  _, count = weave.spectrum([flat], [rough])
  # Half of the rows' segments, and every column: within one nothing changes.
  assert count == 256 * 4 + 512 * 4


def test_a_slope_is_no_weave():
  slope = np.tile(np.arange(512) / 64.0, (256, 1))
  power, count = weave.spectrum([slope], [slope])
  assert count and power.max() < 1e-15
  assert np.isnan(weave.weave(np.zeros(33)))
