"""Which pictures are made consistent with their originals."""

import numpy as np
import pytest

from cdm.data.low_res_inputs import CLEAN, Degradation
from cdm.data.photographs import array_pictures
from cdm.sampling import enlarged_size, picture_damage


@pytest.mark.parametrize(
  ('damage', 'rounds'),
  [
    (CLEAN, 1),
    (Degradation(quality=95), 1),
    (Degradation(quality=89), 0),
    (Degradation(noise=0.9), 1),
    (Degradation(noise=1.0), 0),
    (Degradation(blur=0.3), 1),
    # A result that shrinks to a blurred picture is blurred itself.
    (Degradation(blur=0.5), 0),
  ],
)
def test_results_keep_to_pictures_that_are_not_damaged(damage, rounds):
  picture = array_pictures.taken(np.zeros((8, 6, 3), np.uint8)).photographs[0]
  size = enlarged_size.choose((8, 6), 4, enlarged_size.Asked(), any_factor=True)
  assert picture_damage.rounds_of(picture, size, damage, None) == rounds
  assert picture_damage.rounds_of(picture, size, damage, 2) == 2
  same = enlarged_size.choose(
    (8, 6), 4, enlarged_size.Asked(scale=1), any_factor=True
  )
  assert picture_damage.rounds_of(picture, same, damage, None) == 0
