"""The sample photographs: real, deterministic, and honestly held out."""

import hashlib
import importlib.util
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from cdm.data import sample_photos


def original(name):
  """The photograph as Pillow reads it from scikit-image's own folder."""
  folder = pathlib.Path(importlib.util.find_spec('skimage').origin).parent
  (path,) = (folder / 'data').glob(f'{name}.*')
  return np.asarray(Image.open(path).convert('RGB'))


@pytest.mark.parametrize('name', sample_photos.NAMES)
def test_the_two_regions_tile_the_photograph(name):
  """Laid side by side at shrink 1 they are the file: nothing is in both."""
  parts = [sample_photos.region(name, s, 1) for s in sample_photos.SPLITS]
  whole = original(name)
  axis = 0 if whole.shape[0] > whole.shape[1] else 1
  np.testing.assert_array_equal(np.concatenate(parts, axis), whole)


@pytest.mark.parametrize(
  ('long', 'held_out'),
  [
    (900, 300),  # a third
    (600, 200),
    (576, 192),
    (450, 192),  # a third would have no room for a crop of 64 pixels
    (384, 192),
    (300, 150),  # never more than half
    (7, 3),
    (1, 0),
  ],
)
@pytest.mark.parametrize('upright', [False, True])
def test_a_third_is_held_out_and_more_of_a_narrow_photograph(
  monkeypatch, long, held_out, upright
):
  picture = np.arange(long * 3, dtype=np.uint16).astype(np.uint8)
  picture = np.broadcast_to(picture.reshape(1, long, 3), (2, long, 3))
  if upright and long > 2:
    picture = picture.swapaxes(0, 1)
  monkeypatch.setattr(sample_photos, '_photograph', lambda name: picture)
  # Without the cache, which would keep these for a photograph of that name.
  region = sample_photos.region.__wrapped__
  axis = int(picture.shape[0] <= picture.shape[1])
  train, rest = np.split(picture, [long - held_out], axis)
  np.testing.assert_array_equal(region('it', 'train', 1), train)
  np.testing.assert_array_equal(region('it', 'held_out', 1), rest)


@pytest.mark.parametrize('split', sample_photos.SPLITS)
@pytest.mark.parametrize('shrink', [2, 3])
def test_shrinking_averages_blocks_of_one_region(split, shrink):
  full = sample_photos.region('ihc', split, 1).astype(float)
  h, w = full.shape[0] // shrink, full.shape[1] // shrink
  blocks = full[: h * shrink, : w * shrink].reshape(h, shrink, w, shrink, 3)
  shrunk = sample_photos.region('ihc', split, shrink)
  assert np.abs(shrunk - blocks.mean((1, 3))).max() <= 0.5 + 1e-9


@pytest.mark.parametrize('size', [32, 64])
@pytest.mark.parametrize('split', sample_photos.SPLITS)
def test_every_photograph_has_room_for_crops(split, size):
  source = sample_photos.Photographs(split, image_size=size)
  assert source.num_classes == 13
  for i in range(source.num_classes):
    element = source[i]
    assert element['image'].shape == (size, size, 3)
    assert element['image'].dtype == np.uint8
    assert element['label'] == i and element['short_side'] == size


def test_a_crop_is_a_piece_of_its_region():
  source = sample_photos.Photographs('held_out', image_size=8)
  for i in range(20):
    element = source[i]
    name = source.class_names[element['label']]
    region = sample_photos.region(name, 'held_out', 3)
    windows = np.lib.stride_tricks.sliding_window_view(region, (8, 8, 3))
    same = (windows[:, :, 0] == element['image']).all(axis=(2, 3, 4))
    assert same.any()


def test_a_crop_depends_on_seed_split_and_index_only():
  source = sample_photos.Photographs()
  again = pickle.loads(
    pickle.dumps(sample_photos.Photographs(crops_per_class=9))
  )
  for i in (0, 5, 100):
    np.testing.assert_array_equal(source[i]['image'], again[i]['image'])
  other = sample_photos.Photographs(seed=1)
  assert any((source[i]['image'] != other[i]['image']).any() for i in range(13))


def test_crops_stay_the_same_between_versions():
  """A resumed run must not find other crops; brick is a PNG, so exact."""
  source = sample_photos.Photographs(names=('brick',))
  pixels = b''.join(source[i]['image'].tobytes() for i in range(8))
  assert hashlib.sha256(pixels).hexdigest()[:16] == '54b446e2b46a11a1'


def test_crops_of_one_photograph_differ():
  source = sample_photos.Photographs(names=('gravel', 'coins'))
  crops = {source[2 * i]['image'].tobytes() for i in range(100)}
  assert len(crops) > 95
  assert len(source) == 2 * 4096


def test_grey_photographs_are_grey_in_rgb():
  grey = sample_photos.Photographs(names=('camera',))[0]['image']
  np.testing.assert_array_equal(grey, grey[..., :1].repeat(3, axis=-1))


def test_every_photograph_has_its_terms():
  assert all(sample_photos.LICENCES.values())
  assert len(sample_photos.NAMES) == len(sample_photos.LICENCES)


def test_the_fingerprint_tells_data_sets_apart():
  one, two = sample_photos.Photographs(), sample_photos.Photographs()
  assert one.fingerprint == two.fingerprint
  for other in (
    sample_photos.Photographs('held_out'),
    sample_photos.Photographs(image_size=16),
    sample_photos.Photographs(shrink=2),
    sample_photos.Photographs(seed=1),
    sample_photos.Photographs(names=('moon', 'coins')),
  ):
    assert other.fingerprint != one.fingerprint


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'split': 'test'}, "split is 'test'; known splits are .*'held_out'"),
    ({'names': ('cat',)}, r"\['cat'\] are unknown; known .*'chelsea'"),
    ({'names': ()}, 'known photographs are'),
    ({'image_size': 65}, "'coins', shrunk by 3, has 64x101 pixels: too small"),
    ({'shrink': 1000}, 'too small'),
    ({'crops_per_class': 0}, 'crops_per_class is 0'),
  ],
)
def test_impossible_requests_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    sample_photos.Photographs(**arguments)
