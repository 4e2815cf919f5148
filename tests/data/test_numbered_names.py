"""Numbered images: a folder for every further thousand, never a class."""

import numpy as np
import pytest
from PIL import Image

from cdm.data import folder, image_set, numbered_names


@pytest.mark.parametrize(
  ('n', 'name'),
  [
    (0, '000000.png'),
    (999, '000999.png'),
    (1000, '001/001000.png'),
    (123_456, '123/123456.png'),
    (1_234_567, '1234/1234567.png'),
  ],
)
def test_the_first_thousand_lie_beside_the_folders_of_the_others(n, name):
  assert numbered_names.relative_name(n) == name
  assert numbered_names.number(name.rpartition('/')[2]) == n


@pytest.mark.parametrize(
  'name', ['00012.png', '000012.jpg', '0000012.png', 'a.png', '-00012.png']
)
def test_no_other_name_is_that_of_a_numbered_image(name):
  assert numbered_names.number(name) is None


@pytest.mark.parametrize(
  ('files', 'expected'),
  [
    (['000000.png', '001/001000.png', '002/002999.png'], True),
    (['000000.png', '000999.png'], False),  # plain
    (['000/000000.png', '001/001000.png'], False),  # classes
    (['000000.png', '002/001000.png'], False),  # of another thousand
    (['000000.png', 'cat/001000.png'], False),
    (['000000.png', '001/a.png'], False),
  ],
)
def test_subfolders_are_thousands_or_classes(files, expected):
  assert numbered_names.are_thousands(files) is expected


def test_a_folder_of_thousands_is_read_as_a_plain_one(tmp_path):
  """By training, which sees no classes, and by judging, which pairs names."""
  (tmp_path / 'plain').mkdir()
  (tmp_path / 'drawn' / '001').mkdir(parents=True)
  for n in (7, 1000, 1001):
    image = Image.fromarray(np.full((4, 4, 3), n % 256, np.uint8))
    image.save(tmp_path / 'plain' / numbered_names.file_name(n))
    image.save(tmp_path / 'drawn' / numbered_names.relative_name(n))
  source = folder.Folder(tmp_path / 'drawn')
  assert source.num_classes == 0 and len(source) == 3
  plain, drawn = (
    image_set.load_images(tmp_path / name) for name in ('plain', 'drawn')
  )
  assert plain.names == drawn.names == ('000007', '001000', '001001')
  for i in range(3):
    np.testing.assert_array_equal(drawn.read(i), plain.read(i))
