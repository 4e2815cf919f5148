"""The census transform and its two weights, on pixels whose bits are known."""

import jax.numpy as jnp
import numpy as np

from cdm.ops import census


def test_a_ring_of_bits_has_its_smallest_run():
  def weight(*darker):
    """-> that of the middle of 3x3 pixels, of which some are darker."""
    image = np.full((3, 3), 0.9, np.float32)
    image[1, 1] = 0.5
    for place in darker:
      image[place] = 0.1
    return float(census.structure_weight(image[None])[0, 1, 1])

  edge = [(0, 0), (0, 1), (0, 2), (1, 2)]
  assert weight(*edge) == 1.0
  assert weight(*edge[:3]) == 0.75
  assert weight((0, 1), (1, 2), (2, 1), (1, 0)) == 0.25  # every other one
  assert weight((0, 0), (2, 2), (2, 1)) == 0.25
  assert weight() == 0.0
  assert weight(*census.RING) == 0.0


def test_a_pixel_keeps_the_weight_of_the_census_bits_that_stay():
  before = np.full((1, 3, 3), 0.5, np.float32)
  after = before.copy()
  before[0, 0] = 0.1  # three darker neighbours, of which one stays
  after[0, 0, 0] = 0.1
  weight = census.unchanged_weight(jnp.asarray(before), jnp.asarray(after))
  assert float(weight[0, 1, 1]) == 6 / 8
  assert float(census.unchanged_weight(before, before).min()) == 1.0
