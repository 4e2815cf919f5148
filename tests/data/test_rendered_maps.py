"""Heat maps and shares of parts against what a picture itself shows."""

import numpy as np
import pytest

from cdm.data import rendered_maps, transforms
from cdm.data.transforms import Region

SIDE = 16
WAYS = [
  ('center', 'area'),
  ('random', 'area'),
  ('squash', 'area'),
  ('center', 'lanczos'),
  ('center', 'box_then_bicubic'),
]
SHAPES = [(64, 64), (61, 43), (218, 178), (70, 181), (33, 40)]


def spot(shape, point):
  """-> [H, W, 3], black but for a bright square around a point (x, y)."""
  image, reach = np.zeros((*shape, 3), np.uint8), min(shape) // 12
  x, y = point
  image[y - reach : y + reach + 1, x - reach : x + reach + 1] = 255
  return image


def centre(values):
  """-> [2] (x, y), the centre of mass, in pixels from the corner."""
  values = np.asarray(values, np.float64)
  y, x = np.indices(values.shape) + 0.5
  return np.array([(values * x).sum(), (values * y).sum()]) / values.sum()


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(('crop', 'filter'), WAYS)
def test_a_heat_map_is_where_the_pipeline_moves_a_spot(shape, crop, filter):
  """To a sixth of a pixel of the map, in pictures of any size."""
  fit = {'size': 2 * SIDE, 'crop': crop, 'filter': filter}
  seen = 0
  for seed in range(12):
    rng = np.random.default_rng(seed)
    margin = min(shape) // 4
    point = rng.integers(margin, [shape[1] - margin, shape[0] - margin])
    region = transforms.fit_region(shape, rng=np.random.default_rng(9), **fit)
    x, y = point - [region.left, region.top]
    if not (margin < x < region.width - margin) or not (
      margin < y < region.height - margin
    ):
      continue
    image = transforms.fit(
      spot(shape, point), rng=np.random.default_rng(9), **fit
    )
    heat = rendered_maps.heat_maps(point[None], region, side=SIDE)[..., 0]
    light = centre(image[..., 0]) / 2
    np.testing.assert_allclose(centre(heat), light, atol=1 / 6)
    # The brightest pixel of the map is the one in which the spot lies.
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert max(abs(column + 0.5 - light[0]), abs(row + 0.5 - light[1])) < 0.7
    seen += 1
  assert seen >= 3


def test_a_heat_map_is_a_gaussian_of_the_stated_width():
  """1 at the point, exp(-1/2) at the distance sigma; nothing far outside."""
  whole = Region(0.0, 0.0, 32.0, 32.0)
  # The centre of pixel (4, 7) of the map lies between four of the picture.
  points = np.array([[8.5, 14.5], [500.0, 3.0]])
  heat = rendered_maps.heat_maps(points, whole, side=SIDE)
  assert heat[7, 4, 0] == 255 and rendered_maps.SIGMA == 1.0
  falls = np.rint(255 * np.exp([-0.5, -0.5, -1.0, -2.0])).astype(np.uint8)
  found = [heat[7, 5, 0], heat[6, 4, 0], heat[8, 3, 0], heat[7, 2, 0]]
  np.testing.assert_array_equal(found, falls)
  assert not heat[..., 1].any()


def test_the_shares_of_parts_are_areas():
  """Of whole pixels by counting them, of cut ones by hand."""
  parts = np.random.default_rng(0).integers(0, 5, (32, 48), np.uint8)
  region = Region(0.0, 8.0, 32.0, 32.0)
  found = rendered_maps.shares(parts, 7, region, side=8)
  blocks = parts[:, 8:40].reshape(8, 4, 8, 4)
  for part in range(7):
    share = (blocks == part).mean(axis=(1, 3))
    np.testing.assert_array_equal(found[..., part], np.rint(255 * share))
  # A map of one pixel over the rows 0.5 to 2 and the columns 0 to 1.5:
  # 0.5 x 1 and 0.5 x 0.5 of the first row, 1 x 1 and 1 x 0.5 of the second.
  parts = np.array([[0, 1], [2, 0], [3, 3]], np.uint8)
  (((a, b, c, d),),) = rendered_maps.shares(
    parts, 4, Region(0.5, 0.0, 1.5, 1.5), side=1
  )
  assert [a, b, c, d] == [
    np.rint(255 * x / 2.25) for x in (0.5 + 0.5, 0.25, 1.0, 0.0)
  ]


def test_small_maps_are_enlarged():
  parts = np.array([[0, 1], [2, 3]], np.uint8)
  found = rendered_maps.shares(parts, 4, Region(0, 0, 2, 2), side=6)
  np.testing.assert_array_equal(
    found.argmax(axis=2), parts.repeat(3, 0).repeat(3, 1)
  )
  assert (found.max(axis=2) == 255).all()


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(('crop', 'filter'), WAYS)
def test_a_part_is_where_the_pipeline_moves_its_pixels(shape, crop, filter):
  """The map of a part is the picture of its pixels, shrunk once more."""
  rng = np.random.default_rng(1)
  coarse = rng.integers(0, 2, (4, 4), np.uint8)
  rows, columns = (np.arange(n) * 4 // n for n in shape)
  parts = coarse[rows][:, columns]
  fit = {'size': 2 * SIDE, 'crop': crop, 'filter': filter}
  region = transforms.fit_region(shape, rng=np.random.default_rng(9), **fit)
  found = rendered_maps.shares(parts, 2, region, side=SIDE)
  image = 255 * np.repeat(parts[..., None], 3, 2)
  image = transforms.fit(image, rng=np.random.default_rng(9), **fit)
  shown = image[..., 0].reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))
  # Filters differ at the edges of parts alone.
  assert np.abs(found[..., 1] - shown).mean() < 8
  np.testing.assert_allclose(centre(found[..., 1]), centre(shown), atol=0.1)
