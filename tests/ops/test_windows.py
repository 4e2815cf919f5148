"""Windows cover an axis, and their weights sum to one."""

import numpy as np
import pytest

from cdm.ops import windows

CASES = [
  (8, 8, 2, 0),
  (9, 8, 2, 1),
  (31, 8, 4, 2),
  (64, 8, 0, 0),
  (65, 16, 6, 3),
]


@pytest.mark.parametrize(('length', 'size', 'overlap', 'margin'), CASES)
def test_weights_sum_to_one_at_every_pixel(length, size, overlap, margin):
  starts = windows.starts(length, size, overlap)
  assert starts[0] == 0 and starts[-1] == length - size
  assert (np.diff(starts) <= size - overlap).all()
  intervals = [(start, start + size) for start in starts]
  total = np.zeros(length)
  for (first, last), weight in zip(
    intervals, windows.weights(intervals, margin=margin), strict=True
  ):
    assert weight.min() >= 0
    total[first:last] += weight
  np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(('length', 'size', 'overlap', 'margin'), CASES)
def test_a_margin_does_not_count_but_at_the_ends(length, size, overlap, margin):
  starts = windows.starts(length, size, overlap)
  weights = windows.weights([(s, s + size) for s in starts], margin=margin)
  for i, weight in enumerate(weights):
    if i:
      assert (weight[:margin] == 0).all()
    if i + 1 < len(weights):
      assert (weight[size - margin :] == 0).all()
  assert weights[0][0] == 1 and weights[-1][-1] == 1


@pytest.mark.parametrize(('length', 'size', 'overlap', 'margin'), CASES[2:])
def test_grouped_weights_are_the_same_as_products(
  length, size, overlap, margin
):
  starts = windows.starts(length, size, overlap)
  intervals = [(s, s + size) for s in starts]
  whole = windows.weights(intervals, margin=margin)
  cut = len(starts) // 2
  groups = [(0, cut), (cut, len(starts))]
  outer, inner = windows.grouped(intervals, groups, margin=margin)
  for (first, last), group, own in zip(groups, outer, inner, strict=True):
    origin, sums = starts[first], np.zeros_like(group)
    for i, weight in zip(range(first, last), own, strict=True):
      part = slice(starts[i] - origin, starts[i] - origin + size)
      np.testing.assert_allclose(weight * group[part], whole[i], atol=1e-6)
      sums[part] += weight
    np.testing.assert_allclose(sums, group > 0, atol=1e-6)


def test_weights_fall_smoothly():
  """3 t^2 - 2 t^3 at the middle of each pixel of the overlap."""
  left, right = windows.weights([(0, 12), (8, 20)])
  t = (np.arange(4) + 0.5) / 4
  np.testing.assert_allclose(right[:4], 3 * t**2 - 2 * t**3, rtol=1e-6)
  np.testing.assert_allclose(left[8:], right[:4][::-1], rtol=1e-6)


@pytest.mark.parametrize('length', [1, 2, 5])
def test_the_mirror_image_is_that_of_numpy(length):
  expected = np.pad(np.arange(length), (0, 20), 'symmetric')
  found = windows.mirrored(np.arange(length + 20), length)
  np.testing.assert_array_equal(found, expected)
