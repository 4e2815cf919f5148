"""A part of a result at 1:1, beside what was given and bicubic."""

import numpy as np
import pytest
from PIL import Image

from cdm.data.photographs import array_pictures
from cdm.ops import resize
from cdm.sampling import compared_pictures, enlarged_size, own_results
from cdm.sampling.compared_pictures import Comparison, Part, part_of
from cdm.sampling.enlarged_size import Asked


def size_of(x, scale):
  asked = Asked(scale=scale)
  return enlarged_size.choose(x.shape[:2], 4, asked, any_factor=True)


def textured(height, width, y, x, side):
  """-> grey [height, width, 3] with noise in one square."""
  image = np.full((height, width, 3), 128, np.uint8)
  noise = np.random.default_rng(0).integers(96, 160, (side, side, 3), np.uint8)
  image[y : y + side, x : x + side] = noise
  return image


@pytest.mark.parametrize(('y', 'x'), [(0, 0), (30, 110), (110, 70)])
def test_the_part_with_the_most_detail_is_shown(y, x):
  image = textured(200, 200, y, x, 90)
  part = part_of(image, size_of(image, 4.0))
  assert part.side == compared_pictures.SIDE == 4 * 90
  assert abs(part.top - 4 * y) <= 8 and abs(part.left - 4 * x) <= 8


@pytest.mark.parametrize(
  ('height', 'width', 'scale'),
  [(1, 1, 4.0), (1, 300, 4.0), (50, 7, 1.5), (90, 90, 4.0), (23, 200, 3.7)],
)
def test_the_part_lies_within_the_result(height, width, scale):
  image = np.random.default_rng(1).integers(0, 256, (height, width, 3))
  size = size_of(image, scale)
  part = part_of(image.astype(np.uint8), size)
  assert part.side == min(360, size.height, size.width)
  assert 0 <= part.top <= size.height - part.side
  assert 0 <= part.left <= size.width - part.side


def panes_of(path, side):
  """-> the three images of a comparison."""
  sheet = np.asarray(Image.open(path))
  top = sheet.shape[0] - side - 4
  return [
    sheet[top : top + side, left : left + side]
    for left in (4 + i * (side + 4) for i in range(3))
  ]


def test_rows_are_kept_as_they_pass_and_panes_match_in_place(tmp_path):
  image = textured(110, 130, 18, 35, 90)
  size = size_of(image, 4.0)
  whole = np.random.default_rng(2).integers(0, 256, (440, 520, 3), np.uint8)
  (one,) = array_pictures.taken(image).photographs
  comparison = Comparison(one, size)
  bands = [whole[:1], whole[1:170], whole[170:171], whole[171:]]
  passed = list(comparison.watched(iter(bands)))
  np.testing.assert_array_equal(np.concatenate(passed), whole)
  top, left, side = comparison.part
  assert side == 360
  comparison.write(tmp_path / 'a_compare.png', 'mark')
  assert own_results.is_own(tmp_path / 'a_compare.png', 'mark')
  given, smooth, enlarged = panes_of(tmp_path / 'a_compare.png', side)
  inside = np.s_[top : top + side, left : left + side]
  np.testing.assert_array_equal(enlarged, whole[inside])
  repeated = image.repeat(4, axis=0).repeat(4, axis=1)
  np.testing.assert_array_equal(given, repeated[inside])
  bicubic = np.asarray(resize.resize_uint8(image, (440, 520), method='bicubic'))
  assert np.abs(smooth.astype(int) - bicubic[inside]).max() <= 1


def test_grey_16_bits_and_transparency_are_shown(tmp_path):
  image = np.full((9, 8), 0x8080, np.uint16)
  (one,) = array_pictures.taken(image).photographs
  comparison = Comparison(one, size_of(image, 2.0))
  assert comparison.part == Part(0, 0, 16)
  # What is written may have an alpha channel at the end.
  list(comparison.watched(iter([np.full((18, 16, 2), 0xFFFF, np.uint16)])))
  comparison.write(tmp_path / 'b.png', 'mark')
  given, smooth, enlarged = panes_of(tmp_path / 'b.png', 16)
  assert (given == 128).all() and (smooth == 128).all()
  assert (enlarged == 255).all()


def test_two_results_never_share_a_comparison(tmp_path):
  names = ['a.png', 'b.png', 'A.jpg']
  with pytest.raises(ValueError, match=r'--compare: .*A_compare\.png'):
    compared_pictures.refuse_same_names([tmp_path / n for n in names])
  names = ['a.png', 'a_compare.png']
  with pytest.raises(ValueError, match='different folders'):
    compared_pictures.refuse_same_names([tmp_path / n for n in names])
  compared_pictures.refuse_same_names([tmp_path / 'a.png', tmp_path / 'b.jpg'])
