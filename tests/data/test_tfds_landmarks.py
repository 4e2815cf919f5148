"""The points of TFDS's celeb_a, built by its own code from CelebA's lists."""

import io

import numpy as np
import pytest
from PIL import Image

from cdm.data import facial_maps, landmark_file, pipeline, tfds_landmarks
from cdm.data import tfds as data_tfds

pytest.importorskip('tensorflow')  # to build; reading needs none
tfds = pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

NAMES = ('lefteye', 'righteye', 'nose', 'leftmouth', 'rightmouth')
FILES = [f'{i:06d}.jpg' for i in range(1, 5)]


def jpeg(points):
  """-> a black picture of CelebA's size with a spot around each point."""
  pixels = np.zeros((218, 178, 3), np.uint8)
  for x, y in points:
    pixels[y - 5 : y + 6, x - 5 : x + 6] = 255
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=95)
  return file.getvalue()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """-> (data_dir, CelebA's list of landmarks)."""
  root = tmp_path_factory.mktemp('celeb_a')
  rng = np.random.default_rng(0)
  builder = tfds.builder(
    'celeb_a', data_dir=root / 'tfds', file_format='array_record'
  )
  features = builder.info.features
  points = {file: rng.integers([20, 40], [158, 180], (5, 2)) for file in FILES}
  lists = {
    'list_eval_partition': '\n'.join(f'{file} 0' for file in FILES),
    'landmarks_celeba': '\n'.join(
      [
        str(len(FILES)),
        ' '.join(f'{name}_{axis}' for name in NAMES for axis in 'xy'),
        *(f'{f} {" ".join(map(str, points[f].ravel()))}' for f in FILES),
        '',
      ]
    ),
    'list_attr_celeba': '\n'.join(
      [
        str(len(FILES)),
        ' '.join(features['attributes']),
        *(f'{f} {" ".join(["-1"] * 40)}' for f in FILES),
        '',
      ]
    ),
    'identity_celeba': '\n'.join([*(f'{f} 7' for f in FILES), '']),
  }
  paths = {name: root / f'{name}.txt' for name in lists}
  for name, text in lists.items():
    paths[name].write_text(text, encoding='utf-8')
  pictures = {file: io.BytesIO(jpeg(points[file])) for file in FILES}
  given = {
    'file_id': 0,
    'downloaded_dirs': paths,
    'downloaded_images': pictures,
  }
  generator = tfds.core.SplitGenerator(name='train', gen_kwargs=given)
  with pytest.MonkeyPatch.context() as patch:
    # Its only part that needs the network.
    patch.setattr(type(builder), '_split_generators', lambda *_: [generator])
    builder.download_and_prepare()
  return root / 'tfds', paths['landmarks_celeba']


def open_set(data_dir):
  return data_tfds.Tfds('celeb_a', 'train', data_dir=data_dir)


def test_the_points_are_those_of_celebas_list(made):
  """Records are shuffled: each is known by its picture."""
  data_dir, path = made
  source = open_set(data_dir)
  found = tfds_landmarks.TfdsLandmarks(source, 'landmarks')
  listed = landmark_file.read(path, FILES)
  assert found.names == listed.names == tuple(sorted(NAMES))
  mine = sorted(found.of(i).tolist() for i in range(len(source)))
  assert mine == sorted(listed.points.tolist())
  for i in range(len(source)):
    for x, y in found.of(i).astype(int):
      assert source[i]['image'][y, x].min() > 150


def test_their_maps_lie_on_the_spots_of_the_batches(made):
  source = open_set(made[0])
  faces = facial_maps.FacialMaps(
    source, tfds_landmarks.TfdsLandmarks(source, 'landmarks'), None
  )
  faces.check(flip=True)
  iterator = pipeline.make_iterator(
    faces,
    pipeline.PipelineOptions(image_size=64, flip=True),
    batch_size=8,
    seed=0,
  )
  batch = next(iterator)
  iterator.close()
  small = batch['image'][..., 0].reshape(8, 32, 2, 32, 2).mean(axis=(2, 4))
  for light, maps in zip(small, batch['prior'], strict=True):
    for k in range(5):
      where = np.unravel_index(maps[..., k].argmax(), light.shape)
      assert light[where] > 100


def test_a_feature_without_points_is_refused(made):
  for name in ('attributes', 'image', 'points'):
    with pytest.raises(
      ValueError, match=rf"landmarks is '{name}'.*: landmarks"
    ):
      tfds_landmarks.TfdsLandmarks(open_set(made[0]), name)
