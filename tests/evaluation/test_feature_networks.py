"""Sets of images compared in the features of a network that is given."""

import json

import numpy as np
import pytest
from support import smoke_runs

from cdm.evaluation import extract_features, feature_networks
from cdm.evaluation.metrics import fid
from cdm.models import cifar_resnet
from cdm.models.pretrained import cifar_resnet as weights


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """-> a folder with weights of a network, and two sets of images."""
  path = tmp_path_factory.mktemp('features')
  rng, arrays = np.random.default_rng(0), {}
  shapes = [('conv1', 'bn1', 16, 3)]
  for level, width in enumerate((16, 32, 64), 1):
    before = width // 2 if level > 1 else width
    name = f'layer{level}.0'
    shapes += [
      (f'{name}.conv1', f'{name}.bn1', width, before),
      (f'{name}.conv2', f'{name}.bn2', width, width),
    ]
  for conv, norm, width, channels in shapes:
    kernel = rng.normal(size=(width, channels, 3, 3)) / np.sqrt(9 * channels)
    arrays[f'{conv}.weight'] = kernel.astype(np.float32)
    for part, value in (
      *(('weight', 1), ('bias', 0.1)),
      *(('running_mean', 0), ('running_var', 1)),
    ):
      arrays[f'{norm}.{part}'] = np.full(width, value, np.float32)
  arrays['linear.weight'] = rng.normal(size=(10, 64)).astype(np.float32)
  arrays['linear.bias'] = np.zeros(10, np.float32)
  np.savez(path / 'resnet8.npz', **arrays)
  for name, low in (('a', 0), ('b', 100)):
    images = rng.integers(low, 256, (40, 32, 64, 3), np.uint8)
    np.savez(path / f'{name}.npz', arr_0=images)
  return path


def evaluated(folder, metrics, *more, reference='b.npz'):
  return smoke_runs.cdm(
    *('evaluate', f'--samples={folder / "a.npz"}', f'--metrics={metrics}'),
    f'--reference={folder / reference}',
    f'--weights={folder / "resnet8.npz"}',
    *more,
  )


def test_the_distance_is_that_of_the_squares_of_all_images(folder, capsys):
  assert evaluated(folder, 'fd', '--batch_size=16', '--few') == 0
  row = json.loads(capsys.readouterr().out)
  blocks, params = weights.read(folder / 'resnet8.npz')
  net = cifar_resnet.CifarResNet(blocks)
  moments = []
  for name in ('a', 'b'):
    images = np.load(folder / f'{name}.npz')['arr_0']
    # Left and right halves, 80 squares of each set.
    squares = np.concatenate([images[:, :, :32], images[:, :, 32:]])
    moments.append(fid.moments(net.apply({'params': params}, squares).pool))
  a, b = moments
  expected = fid.fid(a.mean, a.covariance, b.mean, b.covariance)
  assert row['fd'] == pytest.approx(expected, rel=1e-4) and expected > 0.01
  assert row['n'] == 40 and 'fid' not in row
  assert row['samples_recipe']['network'] == 'cifar10-resnet8'
  assert 'not an FID' in row['conventions']['fd']


def test_a_reference_is_made_in_the_features_of_any_network(folder, capsys):
  made = smoke_runs.cdm(
    *('evaluate', '--make_reference', f'--reference={folder / "b.npz"}'),
    f'--weights={folder / "resnet8.npz"}',
    f'--out={folder / "statistics.npz"}',
  )
  assert made == 0
  capsys.readouterr()
  rows = []
  for reference in ('b.npz', 'statistics.npz'):
    assert evaluated(folder, 'fd', '--few', reference=reference) == 0
    rows.append(json.loads(capsys.readouterr().out))
  assert rows[1]['fd'] == pytest.approx(rows[0]['fd'], rel=1e-9)


def test_a_metric_of_inception_alone_is_refused(folder, capsys):
  assert evaluated(folder, 'fid', '--few') == 2
  assert (
    'fid cannot be computed in the features of cifar10-resnet8; its metrics '
    'are fd, or give the weights of Inception-v3.'
  ) in capsys.readouterr().err


def test_fewer_images_than_features_are_asked_about(folder, capsys):
  assert evaluated(folder, 'fd') == 2
  assert 'covariance of 64 features is singular' in capsys.readouterr().err


def test_the_recipe_names_the_network(folder):
  gatherer = extract_features.Gatherer(folder / 'resnet8.npz')
  assert gatherer.recipe['network'] == 'cifar10-resnet8'
  assert gatherer.recipe['resize_to_network'] == 'none; squares of 32 pixels'
  assert gatherer.sizes == {'fd': 64}
  network = feature_networks.read(folder / 'resnet8.npz')
  assert network.metrics == feature_networks.OF_ANY
