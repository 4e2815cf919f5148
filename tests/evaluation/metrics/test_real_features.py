"""Fréchet distances of real photographs' features are the published ones.

Features of the CIFAR-10 test images by a published ResNet-20, with what its
publisher's side stored of them: golden outputs, Gaussians, distances. Skipped
where `../shared/data` is not.
"""

import io
import json
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image
from support.oracles import data

from cdm.evaluation import feature_networks
from cdm.evaluation.metrics import fid


def stored(name):
  with zipfile.ZipFile(data('metric_nets.zip')) as archive:
    with archive.open(f'metric_nets/{name}.npz') as file:
      return dict(np.load(io.BytesIO(file.read())))


def pictures(zipped, sheets):
  """-> uint8 [N, 32, 32, 3]; a sheet is 50 rows of 20."""
  with zipfile.ZipFile(data(zipped)) as archive:
    names = [n for n in sorted(archive.namelist()) if n.endswith('.webp')]
    for name in names[:sheets]:
      with Image.open(io.BytesIO(archive.read(name))) as sheet:
        x = np.asarray(sheet.convert('RGB')).reshape(50, 32, 20, 32, 3)
      yield x.transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)


@pytest.fixture(scope='module')
def network(tmp_path_factory):
  """-> uint8 [B, 32, 32, 3] -> float32 [B, 64], the pooled features."""
  path = tmp_path_factory.mktemp('weights') / 'cifar10_resnet20.npz'
  np.savez(path, **stored('cifar10_resnet20'))
  found = feature_networks.read(path)
  assert found.name == 'cifar10-resnet20'
  run = jax.jit(found.apply)
  return lambda image: np.asarray(run(found.params, image).pool)[:, 0]


def gaussian(moments):
  return moments.mean, moments.covariance


@pytest.mark.parametrize('name', ['cifar10_resnet20', 'cifar10_resnet56'])
def test_the_distance_of_stored_gaussians_is_the_stored_one(name):
  kept = stored(f'{name}_reference')
  expected = json.loads(str(kept['report']))['fd_train_test']
  train, test = (
    (kept[f'mu_{part}'], kept[f'sigma_{part}']) for part in ('train', 'test')
  )
  assert fid.fid(*train, *test) == pytest.approx(expected, rel=1e-9)
  assert fid.fid(*test, *train) == pytest.approx(expected, rel=1e-9)


def test_features_of_real_images_give_the_stored_gaussians(network):
  kept = stored('cifar10_resnet20_reference')
  golden = network(kept['golden_x'])
  np.testing.assert_allclose(golden, kept['golden_feat'], atol=2e-4)
  found = None
  for sheet in pictures('cifar10_test.zip', 10):
    part = fid.moments(network(sheet))
    found = part if found is None else fid.merge(found, part)
  assert found.count == 10_000
  test = kept['mu_test'], kept['sigma_test']
  scale = np.abs(kept['sigma_test']).max()
  np.testing.assert_allclose(found.mean, test[0], atol=1e-5)
  np.testing.assert_allclose(found.covariance, test[1], atol=1e-5 * scale)
  assert abs(fid.fid(*gaussian(found), *test)) < 1e-6
  train = kept['mu_train'], kept['sigma_train']
  expected = json.loads(str(kept['report']))['fd_train_test']
  mine = fid.fid(*gaussian(found), *train)
  assert mine == pytest.approx(expected, rel=1e-3)
