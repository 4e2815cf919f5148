"""Colours of transparent pixels."""

import numpy as np

from cdm.data.photographs import transparency


def test_transparent_pixels_get_the_nearest_colour():
  samples = np.zeros((1, 6, 3), np.uint8)
  samples[0, 1], samples[0, 5] = (10, 20, 30), (200, 100, 50)
  alpha = np.uint8([[0, 255, 0, 0, 0, 1]])
  filled = transparency.fill_transparent(samples, alpha)
  assert filled[0, :, 0].tolist()[:3] == [10, 10, 10]
  assert filled[0, 4:, 0].tolist() == [200, 200]
  assert samples[0, 0].tolist() == [0, 0, 0]


def test_pixels_that_are_seen_keep_their_colour():
  rng = np.random.default_rng(0)
  samples = rng.integers(65536, size=(9, 8, 3)).astype(np.uint16)
  alpha = rng.choice(np.uint16([0, 1, 65535]), size=(9, 8))
  filled = transparency.fill_transparent(samples, alpha)
  seen = alpha > 0
  np.testing.assert_array_equal(filled[seen], samples[seen])
  colours = {tuple(c) for c in samples[seen]}
  assert {tuple(c) for c in filled[~seen]} <= colours


def test_nothing_is_copied_where_nothing_is_filled():
  samples = np.ones((4, 4, 1), np.uint8)
  for alpha in (np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)):
    assert transparency.fill_transparent(samples, alpha) is samples


def test_an_enlarged_edge_has_no_fringe():
  """Red beside what is transparent and stored as black stays red."""
  samples = np.zeros((1, 8, 3), np.uint8)
  samples[0, :4, 0] = 255
  alpha = np.uint8([[255] * 4 + [0] * 4])
  filled = transparency.fill_transparent(samples, alpha).astype(float)
  at = np.linspace(0, 7, 29)
  red = np.interp(at, np.arange(8), filled[0, :, 0])
  assert red.min() == 255
  unfilled = np.interp(at, np.arange(8), samples[0, :, 0].astype(float))
  assert unfilled.min() < 255


def test_division_by_alpha_undoes_multiplication():
  alpha = np.uint16([[65535, 32768, 1, 0]])
  colours = np.uint16([[[40000], [20000], [1], [0]]])
  straight = transparency.divided(colours, alpha)
  assert straight[0, :, 0].tolist() == [40000, 39999, 65535, 0]


def test_white_shows_through():
  samples = np.uint8([[[100, 255], [100, 0], [0, 51]]])
  assert transparency.over_white(samples)[0, :, 0].tolist() == [100, 255, 204]
