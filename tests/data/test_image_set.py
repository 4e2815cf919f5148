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


def test_a_damaged_image_is_named_with_what_to_do(tmp_path):
  path = tmp_path / 'a.png'
  Image.new('RGB', (64, 64), 'red').save(path)
  path.write_bytes(path.read_bytes()[:70])
  with pytest.raises(ValueError, match='a.png: the PNG file is cut off. Write'):
    image_set.load_images(tmp_path).read(0)


def test_sizes_are_given_width_by_height():
  assert image_set.size_of(np.zeros((48, 64, 3))) == '64x48'


def test_white_of_deep_images_can_be_stated(tmp_path):
  Image.fromarray(np.full((8, 8), 1023, np.uint16)).save(tmp_path / 'a.png')
  assert image_set.load_images(tmp_path, max_value=1023).read(0).min() == 255
