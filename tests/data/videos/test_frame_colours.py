"""Planes of videos become the colours that ITU-T H.273 says, and back."""

import itertools

import numpy as np
import pytest

from cdm.data.videos import frame_colours
from cdm.data.videos.frame_colours import FULL, LIMITED, Colours

BT_709 = Colours(LIMITED, 1, 1, 1)


# BT.709 bars of full amplitude in 8 bits, as Y Cb Cr, of SMPTE RP 177; and of
# BT.601, of BT.601-7; and in the full range, of T.871 (JPEG).
@pytest.mark.parametrize(
  'colours, bits, colour, planes',
  [
    (BT_709, 8, (1, 1, 1), (235, 128, 128)),
    (BT_709, 8, (0, 0, 0), (16, 128, 128)),
    (BT_709, 8, (1, 0, 0), (63, 102, 240)),
    (BT_709, 8, (0, 1, 0), (173, 42, 26)),
    (BT_709, 8, (0, 0, 1), (32, 240, 118)),
    (BT_709, 10, (1, 1, 0), (877, 64, 553)),
    (Colours(LIMITED, 6, 6, 6), 8, (1, 0, 0), (81, 90, 240)),
    (Colours(LIMITED, 6, 6, 6), 8, (0, 0, 1), (41, 240, 110)),
    (Colours(FULL, 2, 2, 5), 8, (1, 0, 0), (76, 85, 255)),
    (Colours(FULL, 2, 2, 5), 8, (0, 1, 0), (150, 44, 21)),
  ],
)
def test_colours_have_the_published_numbers(colours, bits, colour, planes):
  rgb = np.broadcast_to(np.float32(colour) * 2 - 1, (4, 6, 3))
  found = frame_colours.to_planes(rgb, colours, bits=bits)
  assert [p.shape for p in found] == [(4, 6), (2, 3), (2, 3)]
  assert found[0].dtype == (np.uint8 if bits == 8 else np.uint16)
  assert tuple(int(p.flat[0]) for p in found) == planes
  assert all((p == p.flat[0]).all() for p in found)
  back = frame_colours.to_rgb(found, colours, bits=bits)
  np.testing.assert_allclose(back, rgb, atol=0.02)


def test_a_ramp_of_colours_stays_where_it_is():
  """Chroma on even columns and between rows moves no colour."""
  y, x = np.mgrid[:16, :24].astype(np.float32)
  ramp = np.stack([x / 24, 0.5 + 0 * x, y / 16], -1) - 0.5
  for bits, within in ((8, 0.011), (10, 0.003)):
    planes = frame_colours.to_planes(ramp, BT_709, bits=bits)
    back = frame_colours.to_rgb(planes, BT_709, bits=bits)
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(back[inside], ramp[inside], atol=within)
  # A JPEG's chroma lies half a pixel further to the right.
  moved = frame_colours.to_rgb(planes, BT_709, bits=10, is_centred=True)
  shift = (back - moved)[4:-4, 4:-4, 0]
  np.testing.assert_allclose(shift, 0.5 / 24, rtol=0.25)


def test_odd_sides_and_finer_chroma_are_read():
  rng = np.random.default_rng(0)
  for height, width in itertools.product((1, 5), (1, 7)):
    luma = rng.integers(16, 235, (height, width), np.uint8)
    half = [np.full((-(-height // 2), -(-width // 2)), 128, np.uint8)] * 2
    found = frame_colours.to_rgb([luma, *half], BT_709, bits=8)
    assert found.shape == (height, width, 3)
    grey = frame_colours.to_rgb([luma], BT_709, bits=8)
    np.testing.assert_allclose(found, grey, atol=1e-6)
    np.testing.assert_allclose(
      grey[..., 0], (luma - 16.0) / 109.5 - 1, atol=1e-6
    )


def test_a_matrix_that_is_not_named_is_that_of_the_size():
  """As players take it: BT.601 up to the 576 rows of PAL, then BT.709."""
  assert Colours().assumed(576).matrix == 6
  assert Colours().assumed(720).matrix == 1
  assert Colours(matrix=9).assumed(576).matrix == 9
