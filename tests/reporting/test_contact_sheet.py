"""Contact sheets and heat maps show every pixel."""

import numpy as np

from cdm.reporting import contact_sheet


def test_a_sheet_shows_every_pixel_of_every_picture():
  x = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
  picture = contact_sheet.sheet([[x[0], None, x[1]], [x[2], None, x[3]]], gap=2)
  for each in x:
    windows = np.lib.stride_tricks.sliding_window_view(picture, (16, 16, 3))
    assert (windows == each).all(axis=(-1, -2, -3)).any()


def test_heat_goes_from_black_to_pale_yellow_and_grows_lighter():
  colours = contact_sheet.heat_map(np.linspace(0.0, 12.0, 50)[None], 10.0)
  assert colours.dtype == np.uint8
  np.testing.assert_array_equal(colours[0, 0], contact_sheet.HEAT[0])
  np.testing.assert_array_equal(colours[0, -5:], [contact_sheet.HEAT[-1]] * 5)
  half = contact_sheet.heat_map(np.full((1, 1), 5.0), 10.0)[0, 0]
  np.testing.assert_array_equal(
    half, contact_sheet.HEAT[len(contact_sheet.HEAT) // 2]
  )
  light = colours[0].astype(float) @ [0.299, 0.587, 0.114]
  assert (np.diff(light) >= 0).all()
