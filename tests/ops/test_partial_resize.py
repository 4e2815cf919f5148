"""A part of a resized picture equals that part of the whole."""

import numpy as np
import pytest

from cdm.ops import partial_resize, resize

SIZES = [((20, 30), (80, 120)), ((23, 17), (9, 40)), ((31, 29), (31, 7))]


@pytest.mark.parametrize('method', resize.METHODS)
@pytest.mark.parametrize(('size', 'new'), SIZES)
def test_rectangles_are_parts_of_the_whole(size, new, method):
  x = np.random.default_rng(0).standard_normal((2, *size, 3), np.float32)
  whole = np.asarray(resize.resize(x, new, method=method))
  height, width = new
  for top, bottom, left, right in [
    (0, height, 0, width),
    (0, 3, 2, 5),
    (height // 2, height // 2 + 1, width - 4, width),
  ]:
    rows = partial_resize.taps(size[0], height, top, bottom, method)
    columns = partial_resize.taps(size[1], width, left, right, method)
    used = x[:, rows.first : rows.last, columns.first : columns.last]
    part = partial_resize.rectangle(used, rows, columns)
    np.testing.assert_allclose(
      part, whole[:, top:bottom, left:right], atol=3e-6
    )


def test_only_pixels_within_the_filter_are_read():
  """Bicubic enlarging reads four pixels, shrinking by 4 reads sixteen."""
  taps = partial_resize.taps(1000, 4000, 2000, 2001, 'bicubic')
  assert taps.last - taps.first == 4
  taps = partial_resize.taps(4000, 1000, 500, 501, 'bicubic')
  assert taps.last - taps.first == 16


def test_an_unknown_method_is_refused():
  with pytest.raises(ValueError, match="method is 'cubic'; known are"):
    partial_resize.taps(4, 8, 0, 8, 'cubic')
