"""Sets of images on disk: what differs in size is named, wherever it stands."""

import numpy as np
import pytest
from PIL import Image

from cdm.data import image_set


@pytest.mark.parametrize('odd', [1, 2, 3])  # the batches are [0, 1], [2, 3]
def test_an_image_of_another_size_is_named_in_any_batch(odd, tmp_path):
  for i in range(4):
    side = 6 if i == odd else 4
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(
      tmp_path / f'{i}.png'
    )
  images = image_set.load_images(tmp_path)
  message = rf"'{odd}' of .* has 6x6 pixels but '0' of .* has 4x4"
  with pytest.raises(ValueError, match=message):
    list(image_set.stream(images, batch_size=2))


def test_the_images_of_a_set_come_in_the_order_asked_for(tmp_path):
  for i in range(3):
    Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f'{i}.png')
  images = image_set.load_images(tmp_path)
  batches = list(image_set.stream(images, [2, 0, 1], batch_size=2))
  assert [len(batch) for batch in batches] == [2, 1]
  assert np.concatenate(batches)[:, 0, 0, 0].tolist() == [2, 0, 1]
