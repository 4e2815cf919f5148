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


@pytest.mark.parametrize('shape', [(32, 51), (64, 40), (33, 32)])
def test_with_the_margin_of_a_filter_tiles_make_the_whole_picture(shape):
  """The mean of 5x5 pixels, which sees 2 pixels beyond the border of a tile."""
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)

  def blurred(x):
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)), mode='edge').astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (0, 1))
    return (windows.sum(axis=(-1, -2)) // 25).astype(np.uint8)

  def twice(x):
    return x.repeat(2, axis=0).repeat(2, axis=1)

  tiles, places = tiling.cut(image, 32)
  made = np.stack([twice(blurred(tile)) for tile in tiles])
  joined = tiling.blend(made, places, shape=shape, factor=2, margin=2)
  whole = twice(blurred(image))
  np.testing.assert_array_equal(joined, whole)
  seams = tiling.blend(made, places, shape=shape, factor=2)
  assert (seams != whole).any()


def test_a_margin_never_leaves_a_pixel_without_a_tile():
  image = np.full((40, 45, 3), 77, np.uint8)
  tiles, places = tiling.cut(image, 32, overlap=1)
  joined = tiling.blend(tiles, places, shape=(40, 45), factor=1, margin=31)
  assert (joined == 77).all()
