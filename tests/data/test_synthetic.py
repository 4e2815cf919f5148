import numpy as np
import pytest

from cdm.data import synthetic


def test_synthetic_images_depend_on_seed_and_index_only():
  one, two = synthetic.Synthetic(), synthetic.Synthetic(num_images=9)
  np.testing.assert_array_equal(one[7]['image'], two[7]['image'])
  other = synthetic.Synthetic(seed=1)
  assert (one[7]['image'] != other[7]['image']).any()
  assert one.fingerprint != other.fingerprint
  assert [int(one[i]['label']) for i in range(5)] == [0, 1, 2, 3, 0]
  with pytest.raises(ValueError, match='num_classes is 0; it must be at least'):
    synthetic.Synthetic(num_classes=0)
  with pytest.raises(ValueError, match='num_classes is 1000000000; it must be'):
    synthetic.Synthetic(num_classes=10**9)  # every class has a name
  with pytest.raises(ValueError, match='seed is -1; it must be at least 0'):
    synthetic.Synthetic(seed=-1)
  with pytest.raises(IndexError):
    two[9]


def test_synthetic_classes_are_told_apart_by_their_direction():
  """Class 0 waves along x only, class 2 of 4 along y only: by the spectrum."""
  source = synthetic.Synthetic(image_size=32)
  for label, axis in ((0, 1), (2, 0)):
    grey = source[label]['image'].astype(float).mean(-1)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    peak = np.unravel_index(power.argmax(), power.shape)
    assert min(peak[axis], 32 - peak[axis]) == 3 and peak[1 - axis] == 0
