"""The noise of a plane: normal, independent, and the same in any rectangle."""

import numpy as np
import pytest

from cdm.ops.noise_plane import BLOCK, NoisePlane

PLANE = NoisePlane(3, 7, (0, 1))


@pytest.mark.parametrize(
  'rectangle',
  [(0, 0, 1, 1), (60, 50, 10, 90), (64, 128, 64, 64), (199, 3, 1, 99)],
)
def test_a_rectangle_is_the_same_part_of_the_plane(rectangle):
  top, left, height, width = rectangle
  whole = PLANE.rectangle(0, 0, 200, 200)
  part = PLANE.rectangle(*rectangle)
  assert part.shape == (height, width, 3) and part.dtype == np.float32
  np.testing.assert_array_equal(
    part, whole[top : top + height, left : left + width]
  )


def test_a_place_far_away_needs_nothing_in_between():
  far = PLANE.rectangle(10_000_000, 20_000_000, 5, 6)
  again = PLANE.rectangle(9_999_999, 19_999_998, 7, 9)
  np.testing.assert_array_equal(far, again[1:6, 2:8])


def test_the_noise_is_standard_normal():
  x = PLANE.rectangle(0, 0, 512, 512).ravel().astype(np.float64)
  # 786,432 values; each bound is four standard errors.
  n = len(x)
  assert abs(x.mean()) < 4 / n**0.5
  assert abs((x**2).mean() - 1) < 4 * (2 / n) ** 0.5
  assert abs((x**3).mean()) < 4 * (15 / n) ** 0.5
  assert abs((x**4).mean() - 3) < 4 * (96 / n) ** 0.5


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('shift', [1, 2, BLOCK, 2 * BLOCK])
def test_neighbours_are_independent_within_blocks_and_across(axis, shift):
  x = PLANE.rectangle(0, 0, 512, 512)
  if axis == 2:
    shift = min(shift, 2)
  a, b = (np.moveaxis(x, axis, 0) for _ in range(2))
  product = (a[shift:] * b[:-shift]).mean()
  assert abs(product) < 4 / a[shift:].size ** 0.5


def test_the_border_of_a_block_is_no_border_of_the_noise():
  """Pixels on both sides of all borders, multiplied."""
  x = PLANE.rectangle(0, 0, 1024, 1024)
  for turned in (x, x.transpose(1, 0, 2)):
    product = turned[BLOCK - 1 : -1 : BLOCK] * turned[BLOCK::BLOCK]
    assert abs(product.mean()) < 4 / product.size**0.5


@pytest.mark.parametrize(
  'other',
  [
    NoisePlane(4, 7, (0, 1)),
    NoisePlane(3, 8, (0, 1)),
    NoisePlane(3, 7, (1, 1)),
    NoisePlane(3, 7, (1, 0)),
    NoisePlane(3, 7, (0, 1, 0)),
  ],
)
def test_another_seed_picture_or_use_has_noise_of_its_own(other):
  a, b = (plane.rectangle(0, 0, 256, 256) for plane in (PLANE, other))
  assert abs((a * b).mean()) < 4 / a.size**0.5
