"""Nearest and bicubic as methods: no parameters, nothing random."""

import jax
import numpy as np
import pytest
from PIL import Image

from cdm.methods import interpolation
from cdm.ops import pixels

LOW = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)


def enlarged(filter, factor=3, low=LOW):
  """-> uint8 images, and how many parameters made them."""
  method = interpolation.interpolation(filter, factor=factor)
  params = method.init(jax.random.key(0))
  x = jax.jit(method.sample)(params, lowres=pixels.to_float(low))
  assert float(abs(x).max()) <= 1.0
  return np.asarray(pixels.to_uint8(x)), len(jax.tree.leaves(params))


def test_nearest_repeats_every_pixel():
  x, num_parameters = enlarged('nearest')
  np.testing.assert_array_equal(x, LOW.repeat(3, axis=1).repeat(3, axis=2))
  assert num_parameters == 0


def test_bicubic_is_that_of_pillow_within_its_rounding():
  soft = LOW // 2 + 64  # Pillow clips between its two passes.
  x, _ = enlarged('bicubic', low=soft)
  for low, image in zip(soft, x, strict=True):
    size = (3 * low.shape[1], 3 * low.shape[0])
    expected = Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)
    assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 2


@pytest.mark.parametrize('filter', interpolation.FILTERS)
def test_an_image_depends_on_low_res_pixels_within_the_margin_only(filter):
  margin = interpolation.MARGINS[filter]
  changed = np.random.default_rng(1).integers(0, 256, (1, 12, 12, 3), np.uint8)
  other = changed.copy()
  other[:, :, :6] = 255 - other[:, :, :6]
  a, b = (enlarged(filter, 2, low)[0] for low in (changed, other))
  first = 2 * (6 + margin)
  np.testing.assert_array_equal(a[:, :, first:], b[:, :, first:])
  assert (a[:, :, first - 2] != b[:, :, first - 2]).any()
