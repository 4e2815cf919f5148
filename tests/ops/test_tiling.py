"""Tiles cover an image, and put together they are the image again."""

import numpy as np
import pytest

from cdm.ops import tiling


def image(h, w):
  # A linear ramp: blending equal values must give them back exactly.
  y, x = np.mgrid[:h, :w]
  return np.stack([y, x, (y + x) // 2], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(('h', 'w'), [(8, 8), (9, 8), (20, 31), (64, 17)])
def test_tiles_put_together_are_the_image(h, w):
  tiles, places = tiling.cut(image(h, w), 8)
  assert tiles.shape[1:] == (8, 8, 3)
  whole = tiling.blend(tiles, places, shape=(h, w), factor=1)
  np.testing.assert_array_equal(whole, image(h, w))


@pytest.mark.parametrize('length', range(8, 60))
def test_neighbouring_tiles_overlap_enough(length):
  starts = tiling.tile_starts(length, 8, 2)
  assert starts[0] == 0 and starts[-1] == length - 8
  assert all(b - a <= 6 for a, b in zip(starts, starts[1:], strict=False))


def test_an_overlap_is_blended_without_a_jump():
  """Two flat tiles of different grey: a ramp between them, no step over 1/4."""
  tiles = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 80)])
  whole = tiling.blend(
    tiles.astype(np.uint8), [(0, 0), (0, 4)], shape=(8, 12), factor=1
  )
  row = whole[0, :, 0].astype(int)
  assert row[0] == 0 and row[-1] == 80
  assert (np.diff(row) >= 0).all() and np.diff(row).max() <= 80 // 4


def test_an_image_smaller_than_a_tile_is_refused():
  with pytest.raises(ValueError, match=r'7x20 pixels, smaller than the 8x8'):
    tiling.cut(image(20, 7), 8)
