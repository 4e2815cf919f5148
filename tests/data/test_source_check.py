"""Data that would be enlarged, or was prepared otherwise, is refused."""

import numpy as np
import pytest

from cdm.data import (
  array_record,
  prepare,
  source_check,
  synthetic,
  transforms,
)
from cdm.data.forms import npz_batches

ASKED = {
  'size': 8,
  'crop': 'center',
  'filter': 'area',
  'allow_enlarging': False,
  'name': 'config.train_data',
}


class Sides:
  """Images of these sides; None is a file that cannot be read."""

  def __init__(self, *sides, originals=()):
    self.sides, self.originals, self.read = sides, originals, []

  def __len__(self):
    return len(self.sides)

  def __getitem__(self, i):
    self.read.append(i)
    side = self.sides[i]
    if side is None:
      raise transforms.BadImage(f'{i}.png', 'cut off')
    short = self.originals[i] if self.originals else side
    image = np.zeros((side, 2 * side, 3), np.uint8)
    return {'image': image, 'label': np.int32(0), 'short_side': np.int32(short)}


@pytest.mark.parametrize('count', [1, 3, 200])
def test_images_that_are_all_smaller_are_refused(count):
  refusal = r'^allow_enlarging is False, .*_data.*8 pixels .*\(record \d+: 7 '
  with pytest.raises(ValueError, match=refusal):
    source_check.check(Sides(*[7] * count), **ASKED)
  for change in ({'allow_enlarging': True}, {'crop': 'none'}, {'size': 7}):
    source_check.check(Sides(*[7] * count), **ASKED | change)


def test_one_image_that_is_large_enough_ends_the_look_at_the_first():
  source = Sides(*[8] * 100)
  source_check.check(source, **ASKED)
  assert len(source.read) == 1
  mixed = Sides(*[7, 8] * 50)
  source_check.check(mixed, **ASKED)
  assert len(mixed.read) <= 8


def test_unreadable_images_decide_nothing():
  source_check.check(Sides(None, None), **ASKED)
  with pytest.raises(ValueError, match='so are all 1 that were looked at'):
    source_check.check(Sides(None, 7), **ASKED)


def test_the_original_of_a_prepared_image_counts():
  """It was enlarged when it was prepared."""
  with pytest.raises(ValueError, match='record 0: 5 pixels'):
    source_check.check(Sides(8, originals=(5,)), **ASKED)


@pytest.fixture
def prepared(tmp_path):
  """Returns images of 16 pixels, prepared with the options of the call."""
  pytest.importorskip('array_record')

  def make(**options):
    source = synthetic.Synthetic(image_size=16, num_images=4)
    prepare.prepare(source, out=tmp_path, **options)
    return array_record.ArrayRecords(tmp_path)

  return make


@pytest.mark.parametrize(
  ('asked', 'message'),
  [
    ({'size': 9}, r'^allow_enlarging is False.* at 8 .* --size=9, or'),
    ({'crop': 'squash'}, r"^crop is 'squash', but .* --crop=squash"),
    ({'crop': 'random'}, r"^crop is 'random', but .*'center'"),
    ({'size': 4, 'crop': 'squash'}, r"^crop is 'squash'"),
    ({'filter': 'area'}, r"^filter is 'area', .*'box_then_bic.* --filter="),
    ({'filter': 'box_then_bicubic'}, None),
    ({'filter': 'center_crop_dhariwal'}, None),
    ({'size': 9, 'allow_enlarging': True}, None),
    ({'size': 9, 'crop': 'none'}, None),  # refused with the first image
  ],
)  # fmt: skip
def test_data_that_was_prepared_otherwise_is_refused(prepared, asked, message):
  source = prepared(size=8, filter='box_then_bicubic')
  asked = ASKED | {'filter': 'box_then_bicubic'} | asked
  if message is None:
    source_check.check(source, **asked)
    return
  with pytest.raises(ValueError, match=message):
    source_check.check(source, **asked)


def test_a_second_resizing_is_said(prepared, caplog):
  source = prepared(size=12, filter='bicubic')
  source_check.check(source, **ASKED)
  (said,) = caplog.messages
  assert "at 12 pixels with the filter 'bicubic'" in said
  assert "to 8 with 'area'" in said and '--size=8' in said


def test_images_that_were_distributed_resized_say_how(caplog):
  source = Sides(8)
  source.made_by = npz_batches.NpzBatches.made_by
  source_check.check(source, **ASKED)
  (said,) = caplog.messages
  assert "with the crop 'squash' and the filter 'box'" in said
  assert "the crop is 'center' and the filter 'area'" in said
  caplog.clear()
  source_check.check(source, **ASKED | {'crop': 'squash', 'filter': 'box'})
  assert not caplog.messages


def test_images_that_were_square_were_neither_cropped_nor_resized(prepared):
  source = prepared(size=16, crop='none', filter='bicubic')
  source_check.check(source, **ASKED | {'size': 16, 'crop': 'squash'})
