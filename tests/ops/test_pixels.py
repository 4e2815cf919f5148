"""Levels and floats, and images laid out as a grid."""

import jax
import numpy as np

from cdm.ops import pixels


def test_every_grey_level_survives_the_round_trip_bit_for_bit():
  levels = np.arange(256, dtype=np.uint8)
  x = pixels.to_float(levels)
  np.testing.assert_allclose(x, levels / 127.5 - 1.0, rtol=0, atol=1e-7)
  np.testing.assert_array_equal(jax.jit(pixels.to_float)(levels), x)
  np.testing.assert_array_equal(pixels.to_uint8(x), levels)
  np.testing.assert_array_equal(jax.jit(pixels.to_uint8)(x), levels)


def test_rounding_takes_the_nearest_level_and_clips():
  x = np.array([-9, -1, -0.9999, 0, 0.5, 1, 1.001, 9], np.float32)
  expected = [0, 0, 0, 128, 191, 255, 255, 255]  # 0.5 is level 191.25
  np.testing.assert_array_equal(pixels.to_uint8(x), expected)


def test_a_grid_shows_every_picture_in_reading_order():
  pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
  sheet = pixels.grid(pictures, 3, gap=1)
  assert sheet.shape == (2 * 5 + 1, 3 * 7 + 1, 3)
  for n in range(5):
    row, column = divmod(n, 3)
    y, x = 1 + 5 * row, 1 + 7 * column
    np.testing.assert_array_equal(sheet[y : y + 4, x : x + 6], pictures[n])
  assert (sheet[6:, 15:] == 255).all()  # the place of a sixth
  assert (sheet[0] == 255).all() and (sheet[:, 0] == 255).all()
