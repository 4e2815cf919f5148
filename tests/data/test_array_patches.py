"""Arrays are trained on as patches, whose values mean the same everywhere."""

import pickle

import numpy as np
import pytest

from cdm.config import datasets
from cdm.data import pipeline, transforms
from cdm.data.array_patches import ArrayPatches


def whole(*shape):
  """-> float32 array, 0 to 1000, every value another."""
  return np.linspace(0, 1000, int(np.prod(shape)), dtype='f4').reshape(shape)


def test_patches_lie_side_by_side(tmp_path):
  a, b = whole(9, 13, 2), whole(4, 4, 2)
  np.save(tmp_path / 'a.npy', a)
  (tmp_path / 'more').mkdir()
  np.save(tmp_path / 'more' / 'b.npy', b)
  source = ArrayPatches(str(tmp_path), range=(0.0, 1000.0), size=4)
  assert len(source) == 2 * 3 + 1 and source.channels == 2
  copy = pickle.loads(pickle.dumps(source))
  for found in (source, copy):
    unit = found[4]['image']
    assert unit.dtype == np.float32 and unit.shape == (4, 4, 2)
    np.testing.assert_allclose((unit + 1) * 500, a[4:8, 4:8], rtol=1e-5)
    np.testing.assert_allclose((found[6]['image'] + 1) * 500, b, atol=1e-3)
  assert source.fingerprint == copy.fingerprint
  np.save(tmp_path / 'a.npy', a + 1)
  assert (
    source.fingerprint
    != ArrayPatches(str(tmp_path), range=(0.0, 1000.0), size=4).fingerprint
  )
  with pytest.raises(IndexError):
    source[7]


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_an_archive_holds_many(tmp_path, save):
  levels = np.arange(3 * 8 * 8, dtype='u1').reshape(3, 8, 8, 1)
  save(tmp_path / 'a.npz', levels)
  source = ArrayPatches(str(tmp_path / 'a.npz'))
  assert len(source) == 3
  found = (source[2]['image'] + 1) * 127.5
  np.testing.assert_allclose(found, levels[2], atol=1e-4)


def test_values_beyond_the_range_are_clipped_and_missing_ones_filled(tmp_path):
  a = np.full((8, 8), 5.0)
  a[0, 0], a[4, 4] = 99.0, np.nan
  np.save(tmp_path / 'a.npy', a)
  unit = ArrayPatches(str(tmp_path), range=(0.0, 10.0))[0]['image'][..., 0]
  assert unit[0, 0] == 1.0 and unit[4, 4] == 0.0


def test_batches_are_of_the_channels_that_are_asked_for(tmp_path):
  np.save(tmp_path / 'a.npy', whole(16, 16, 5))
  section = {'kind': 'arrays', 'path': str(tmp_path), 'size': 8}
  source = datasets.open_source({**section, 'range': (0.0, 1000.0)})
  options = pipeline.PipelineOptions(8, channels=5, flip=True)
  batches = pipeline.make_iterator(source, options, batch_size=3, seed=0)
  batch = next(batches)
  batches.close()
  assert batch['image'].shape == (3, 8, 8, 5)
  assert batch['image'].dtype == np.float32
  assert -1 <= batch['image'].min() < batch['image'].max() <= 1
  options = pipeline.PipelineOptions(8, channels=3)
  batches = pipeline.make_iterator(source, options, batch_size=3, seed=0)
  with pytest.raises(ValueError, match=r'channels is 3, but .* has 5 channels'):
    next(batches)
  batches.close()


def test_grey_of_an_rgb_image_is_pillows():
  from PIL import Image

  rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
  grey = transforms.with_channels(rgb, 1)
  expected = np.asarray(Image.fromarray(rgb).convert('L'))
  np.testing.assert_array_equal(grey[..., 0], expected)


@pytest.mark.parametrize(
  ('arrays', 'options', 'message'),
  [
    ({}, {}, 'is a folder without arrays'),
    ({'a': whole(8, 8)}, {}, r'range is None, but .*a\.npy is float32'),
    ({'a': whole(8, 8)}, {'size': 9}, 'No array of .* has 9x9 pixels'),
    (
      {'a': whole(8, 8), 'b': whole(8, 8, 2)},
      {'range': (0.0, 1.0)},
      r'have \[1, 2\] channels',
    ),
    ({'a': whole(8, 8)}, {'range': (1.0, 0.0)}, 'first number must be lower'),
  ],
)
def test_what_cannot_be_trained_on_is_said(tmp_path, arrays, options, message):
  for name, array in arrays.items():
    np.save(tmp_path / f'{name}.npy', array)
  if 'size' in options:
    options = {**options, 'range': (0.0, 1.0)}
  with pytest.raises(ValueError, match=message):
    ArrayPatches(str(tmp_path), **options)
  if arrays:
    return
  with pytest.raises(ValueError, match='does not exist'):
    ArrayPatches(str(tmp_path / 'none'))


def test_arrays_are_not_resized():
  with pytest.raises(ValueError, match=r'not resized, and one has 9x8'):
    transforms.fit(np.zeros((8, 9, 2), np.float32), size=8)
