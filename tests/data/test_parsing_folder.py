"""Label maps, and the masks of CelebAMask-HQ as they are distributed."""

import numpy as np
import pytest
from PIL import Image

from cdm.data import parsing_folder
from cdm.data.transforms import BadImage

FILES = ('0.jpg', '2001.jpg')
NAMES = ('background', 'skin', 'l_eye')


def write(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(values, np.uint8)).save(path)


def open_folder(path, files=FILES, names=parsing_folder.PARTS):
  return parsing_folder.ParsingFolder(path, files, names)


@pytest.mark.parametrize('folder', ['', 'deep/'])
def test_a_map_is_found_by_the_path_or_the_name_of_its_picture(
  tmp_path, folder
):
  maps = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 19
  for name, values in zip(('0', '2001'), maps, strict=True):
    write(tmp_path / f'{folder}{name}.png', values)
  write(tmp_path / 'of_another.png', maps[0])
  for files in (FILES, tuple(f'deep/{file}' for file in FILES)):
    found = open_folder(tmp_path, files)
    np.testing.assert_array_equal([found.read(0), found.read(1)], maps)


def as_distributed(root):
  """Masks of two pictures, as in CelebAMask-HQ-mask-anno."""
  skin = np.zeros((6, 6))
  skin[1:5, 1:5] = 255
  eye = np.zeros((6, 6))
  eye[2, 1:3] = 255
  hair = np.zeros((6, 6))
  hair[:2] = 255
  for name, mask in (
    ('0/00000_hair', hair),
    ('0/00000_l_eye', eye),
    ('0/00000_skin', skin),
    ('1/02001_skin', skin),
  ):
    # Those of the distribution have three channels.
    write(root / f'{name}.png', np.repeat(mask[..., None], 3, 2))
  return skin > 0, eye > 0, hair > 0


def test_the_masks_of_celebamask_hq_cover_each_other_in_its_own_order(tmp_path):
  """As the loop of g_mask.py: the last part of the list that has a pixel."""
  skin, eye, hair = as_distributed(tmp_path)
  found = open_folder(tmp_path)
  expected = np.zeros((6, 6), np.uint8)
  for number, mask in ((1, skin), (4, eye), (13, hair)):
    expected[mask] = number
  np.testing.assert_array_equal(found.read(0), expected)
  np.testing.assert_array_equal(found.read(1), skin)
  assert found.names[1] == 'skin' and found.names[4] == 'l_eye'
  assert found.names[13] == 'hair' and len(found.names) == 19
  # Of the parts that are named, the others are the background.
  found = open_folder(tmp_path, names=NAMES)
  np.testing.assert_array_equal(found.read(0), np.where(eye, 2, skin))


def test_a_picture_without_a_map_is_named(tmp_path):
  with pytest.raises(ValueError, match='is not there. Give the folder of'):
    open_folder(tmp_path / 'absent')
  write(tmp_path / 'a' / '0.png', np.zeros((4, 4)))
  with pytest.raises(ValueError, match=r'no map of 2001.jpg: it has 1 PNGs f'):
    open_folder(tmp_path / 'a')
  as_distributed(tmp_path / 'b')
  for files in (('0.jpg', '1.jpg'), ('0.jpg', 'x1.jpg')):
    with pytest.raises(ValueError, match=r'no map of x?1.jpg: it has 4 PNGs'):
      open_folder(tmp_path / 'b', files)
  for name in ('one/0.png', 'two/0.png'):  # Which of the two is meant?
    write(tmp_path / 'c' / name, np.zeros((4, 4)))
  with pytest.raises(ValueError, match='no map of 0.jpg'):
    open_folder(tmp_path / 'c', FILES[:1])


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    (np.full((4, 4), 3), 'it has the number 3, and the 3 parts are 0 to 2'),
    (np.arange(48).reshape(4, 4, 3), 'it is not grey of 8 bits'),
  ],
)
def test_what_numbers_no_parts_is_refused(tmp_path, values, message):
  write(tmp_path / '0.png', values)
  with pytest.raises(BadImage, match=message):
    open_folder(tmp_path, FILES[:1], NAMES).read(0)


def test_numbers_in_a_palette_or_of_16_bits_are_refused(tmp_path):
  """They would be read as colours, and as next to nothing of white."""
  image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert('P')
  image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
  deep = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint16))
  for one in (image, deep):
    one.save(tmp_path / '0.png')
    with pytest.raises(BadImage, match='not grey of 8 bits, whose values'):
      open_folder(tmp_path, FILES[:1], NAMES).read(0)


def test_masks_of_two_sizes_are_refused(tmp_path):
  as_distributed(tmp_path)
  write(tmp_path / '0' / '00000_hair.png', np.zeros((5, 5)))
  with pytest.raises(BadImage, match='another size than the masks beside it'):
    open_folder(tmp_path).read(0)


def test_the_names_of_parts_are_two_or_more_different_ones(tmp_path):
  for names in (('skin',), ('skin', 'skin')):
    with pytest.raises(ValueError, match='parts has the . names'):
      open_folder(tmp_path, names=names)
