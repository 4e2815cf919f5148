"""Chosen records: which, and that each comes with its own label."""

import numpy as np
import pytest

from cdm.data import folder, subset, synthetic

SOURCE = synthetic.Synthetic(8, num_images=64, num_classes=4, seed=0)


def test_one_record_of_each_stretch_is_chosen_once_and_for_all():
  chosen = subset.spread_indices(SOURCE, 16)
  assert [i // 4 for i in chosen] == list(range(16))
  assert subset.spread_indices(SOURCE, 16) == chosen


@pytest.mark.parametrize('count', [1, 40, 60, 63])
def test_no_record_is_chosen_twice_however_many_are(count):
  chosen = subset.spread_indices(SOURCE, count)
  assert len(set(chosen)) == count
  assert sorted(chosen) == chosen and chosen[-1] < 64


def test_classes_that_go_round_are_all_met():
  """A stride of 4 would meet one of the four."""
  assert {i % 4 for i in subset.spread_indices(SOURCE, 16)} == {0, 1, 2, 3}


def test_all_of_a_source_can_be_chosen_and_no_more():
  assert subset.spread_indices(SOURCE, 64) == list(range(64))
  with pytest.raises(ValueError, match='65 images .* the data has 64; ask'):
    subset.spread_indices(SOURCE, 65)


def test_records_come_in_the_order_asked_for():
  indices = [7, 60, 2]
  images, labels = subset.read_images(SOURCE, indices, image_size=8)
  for i, image, label in zip(indices, images, labels, strict=True):
    np.testing.assert_array_equal(image, SOURCE[i]['image'])
    assert label == i % 4


def test_the_fit_is_that_of_the_pipeline(write_folder, tmp_path):
  write_folder(tmp_path, 2)
  source = folder.Folder(tmp_path)
  images, labels = subset.read_images(source, [1, 0], image_size=4)
  assert images.shape == (2, 4, 4, 3) and labels.tolist() == [1, 0]
  with pytest.raises(ValueError, match='expects 4x4 pixels'):
    subset.read_images(source, [0], image_size=4, crop='none')


FIT = dict(image_size=8, crop='center', filter='area')


@pytest.mark.parametrize(('min_side', 'there'), [(0, 1), (8, 1), (9, 0)])
def test_one_image_is_read_unless_it_is_too_small(min_side, there):
  found = subset.read_image(SOURCE, 6, min_side=min_side, **FIT)
  assert (found is not None) == there
  if found is not None:
    np.testing.assert_array_equal(found[0], SOURCE[6]['image'])
    assert found[1] == 2


def test_a_random_crop_of_one_image_is_the_same_in_every_evaluation(
  write_folder, tmp_path
):
  write_folder(tmp_path, 2)
  source = folder.Folder(tmp_path)
  fit = FIT | {'image_size': 4, 'crop': 'random', 'min_side': 0}
  one, again = (subset.read_image(source, 1, **fit)[0] for _ in range(2))
  assert one.shape == (4, 4, 3)
  np.testing.assert_array_equal(one, again)


def test_a_subset_is_told_apart_by_its_source_and_its_indices():
  chosen = subset.Subset(SOURCE, (5, 3))
  assert len(chosen) == 2 and chosen.num_classes == 4
  np.testing.assert_array_equal(chosen[1]['image'], SOURCE[3]['image'])
  assert chosen.fingerprint == subset.Subset(SOURCE, [5, 3]).fingerprint
  other = synthetic.Synthetic(8, num_images=64, num_classes=4, seed=1)
  for differs in (subset.Subset(SOURCE, [3, 5]), subset.Subset(other, [5, 3])):
    assert differs.fingerprint != chosen.fingerprint


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    (None, None),
    ([], None),
    (['a.JPEG', 'b.JPEG'], None),
    (['ILSVRC2012_val_00000001.JPEG', 'b.JPEG'], None),
    ([f'val/ILSVRC2012_val_0000000{n}.JPEG' for n in (3, 1, 2)], [1, 2]),
  ],
)
def test_the_first_validation_images_need_every_name(names, expected):
  class Named:
    def file_names(self):
      return names

  assert subset.first_validation(Named(), 2) == expected
  assert subset.first_validation(SOURCE, 2) is None
