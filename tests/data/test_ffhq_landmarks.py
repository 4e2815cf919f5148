"""FFHQ's file of landmarks, and files that are none."""

import json

import numpy as np
import pytest

from cdm.config import facial_priors
from cdm.data import facial_maps, ffhq_landmarks, mirrored_names
from cdm.data.files import damaged_file
from cdm.data.transforms import BadImage

# The pairs of the 68 marks that change places in a mirrored face, counted from
# 1, as the 300-W challenge draws them.
PAIRS = """1-17 2-16 3-15 4-14 5-13 6-12 7-11 8-10 18-27 19-26 20-25 21-24 22-23
32-36 33-35 37-46 38-45 39-44 40-43 41-48 42-47 49-55 50-54 51-53 59-57 60-56
61-65 62-64 68-66"""


def entry(n, points):
  """-> one picture, with the keys that FFHQ's own description of it shows."""
  name = f'{n // 1000 * 1000:05d}/{n:05d}.png'
  return {
    'category': 'training',
    'metadata': {'photo_title': 'DSCF0899.JPG', 'license': 'CC BY 2.0'},
    'image': {
      'file_path': f'images1024x1024/{name}',
      'file_size': 1488194,
      'pixel_size': [1024, 1024],
      'face_landmarks': points.tolist(),
    },
    'thumbnail': {
      'file_path': f'thumbnails128x128/{name}',
      'pixel_size': [128, 128],
    },
    'in_the_wild': {
      'file_path': f'in-the-wild-images/{name}',
      'pixel_size': [2016, 1512],
      'face_rect': [667, 410, 1438, 1181],
      'face_landmarks': (points + 500).tolist(),
      'face_quad': [],
    },
  }


def write(tmp_path, points):
  path = tmp_path / 'ffhq-dataset-v2.json'
  found = {str(n): entry(n, p) for n, p in enumerate(points)}
  path.write_text(json.dumps(found), encoding='utf-8')
  return path


@pytest.fixture
def points():
  return np.random.default_rng(0).uniform(0, 1023, (3, 68, 2)).round(2)


@pytest.mark.parametrize(
  'files',
  [
    ('images1024x1024/00000/00002.png', 'images1024x1024/00000/00000.png'),
    ('00000/00002.png', '00000/00000.png'),
    ('00002.jpg', '00000.jpg'),
  ],
)
def test_points_are_those_of_the_aligned_picture(tmp_path, points, files):
  path = write(tmp_path, points)
  assert ffhq_landmarks.is_one(path)
  found = ffhq_landmarks.read(path, files)
  assert found.size == (1024, 1024)
  np.testing.assert_allclose(found.points, points[[2, 0]], rtol=1e-6)


def test_names_tell_which_points_change_places():
  order = list(range(68))
  for pair in PAIRS.split():
    a, b = (int(n) - 1 for n in pair.split('-'))
    order[a], order[b] = b, a
  names = ffhq_landmarks.point_names()
  assert len(set(names)) == 68
  assert mirrored_names.order(names) == tuple(order)
  # CelebA's lefteye, too, is the eye at the left of the picture.
  assert names[0] == 'left_00' and names[16] == 'right_00'
  assert names[30] == 'middle_30'


class Pictures:
  """Grey pictures of one size, with the names of FFHQ's thumbnails."""

  num_classes, class_names, fingerprint = None, None, 'pictures'

  def __init__(self, side, count=3):
    self.side, self.count = side, count

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    return {'image': np.zeros((self.side, self.side, 3), np.uint8), 'label': 0}

  def file_names(self):
    return tuple(f'00000/{n:05d}.png' for n in range(self.count))


def test_points_follow_a_copy_of_another_size(tmp_path, points):
  """The centre of a square of 8 x 8 pixels is that of a pixel of the copy."""
  points[0, 0] = 3.5, 8 * 127 + 3.5
  pictures = Pictures(128)
  found = ffhq_landmarks.read(write(tmp_path, points), pictures.file_names())
  source = facial_maps.FacialMaps(pictures, found, None)
  assert source.num_maps == 68
  face, _ = source[0]['face']
  np.testing.assert_allclose(face[0], [0, 127], atol=1e-5)


def test_a_face_with_a_point_outside_is_left_out(tmp_path, points):
  """At the start none of them ends a run, because dlib puts some there."""
  points = np.concatenate([points] * 8)
  points[1, 5] = -3, 40
  pictures = Pictures(1024, len(points))
  found = ffhq_landmarks.read(write(tmp_path, points), pictures.file_names())
  source = facial_maps.FacialMaps(pictures, found, None)
  source.check(flip=True)
  with pytest.raises(BadImage, match='landmarks reach'):
    source[1]


def test_the_key_of_the_config_takes_it(tmp_path, points):
  path = str(write(tmp_path, points))
  section = {'landmarks': path, 'parsing': '', 'parts': ()}
  assert facial_priors._open('folder', section, Pictures(64)).num_maps == 68


@pytest.mark.parametrize(
  ('text', 'error', 'message'),
  [
    ('{"0": {"image": ', damaged_file.DamagedFile, 'is damaged'),
    ('{"0": {"image": {"x": 1}}}', ValueError, 'of which 0 have'),
    ('{}', ValueError, 'has 0 entries'),
    (
      '{"0": {"image": {"face_landmarks": [[1, 2]], "pixel_size": [9, 9], '
      '"file_path": "a.png"}}}',
      damaged_file.DamagedFile,
      r'shape \(1, 2\) for a.png',
    ),
    (
      '{"0": {"image": {"face_landmarks": [[1, 2]]}}}',
      damaged_file.DamagedFile,
      'without a path',
    ),
  ],
)
def test_what_is_no_such_file_is_refused(tmp_path, text, error, message):
  path = tmp_path / 'ffhq-dataset-v2.json'
  path.write_text(text, encoding='utf-8')
  with pytest.raises(error, match=message):
    ffhq_landmarks.read(path, ('a.png',))


def test_a_picture_that_it_lacks_is_named(tmp_path, points):
  with pytest.raises(ValueError, match='00007.png'):
    ffhq_landmarks.read(write(tmp_path, points), ('00001.png', '00007.png'))
