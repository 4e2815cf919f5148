"""FID's Inception-v3 equals the peers' with weights made by a rule."""

import jax
import numpy as np
import pytest
from support.oracles import assert_matches, oracle, rule_weights

from cdm.models import inception
from cdm.models.inception import Inception
from cdm.models.pretrained import inception as inception_weights

NAMES = ('32_smooth', '64_noisy', '256_noisy', '299_smooth')


@pytest.fixture(scope='module')
def stored():
  """-> (keys, arrays, weights by PyTorch's names)."""
  description, arrays = oracle('inception_fid')
  return description['keys'], arrays, rule_weights(description['weights'])


@pytest.fixture(scope='module')
def found(stored):
  """-> {image: (Features, {name: spatial mean of a middle layer})}."""
  _, arrays, state = stored
  params = inception_weights.from_pytorch(state)

  @jax.jit
  def apply(params, image):
    features, kept = Inception().apply(
      {'params': params}, image, mutable='intermediates'
    )
    kept = kept['intermediates']
    return features, {n: x[0].mean(axis=(1, 2)) for n, x in kept.items()}

  return {
    name: jax.device_get(apply(params, arrays[f'img/{name}'][None]))
    for name in NAMES
  }


@pytest.mark.parametrize('name', NAMES)
def test_features_equal_torch_fidelitys(stored, found, name):
  keys, arrays, _ = stored
  features, kept = found[name]
  mine = {
    '64': kept['64'],
    '192': kept['192'],
    '768': kept['768'],
    '2048': features.pool,
    'logits': features.logits,
    'logits_unbiased': features.logits_unbiased,
  }
  for layer, value in mine.items():
    key = f'tf1resize/{name}/{layer}'
    assert_matches(value[0], arrays[key], keys[key]['tol'], key)


def test_the_spatial_features_are_of_the_first_branch_of_6d(stored, found):
  keys, arrays, _ = stored
  key = 'tf1resize/256_noisy/mixed6d_branch1x1_first7'
  mine = found['256_noisy'][0].spatial.reshape(17, 17, 7)
  assert_matches(mine, arrays[key], keys[key]['tol'], key)


def test_images_grow_and_shrink_as_tensorflow_1_did(stored):
  keys, arrays, _ = stored
  for name in NAMES[:3]:
    key = f'resize_tf1/{name}'
    image = arrays[f'img/{name}'][None].astype(np.float32)
    mine = np.asarray(inception.resize_tf1(image, 299))[0, ::13, ::13]
    assert_matches(mine, arrays[key], keys[key]['tol'], key)


def test_a_pixel_lies_at_its_corner():
  x = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1) * np.ones((1, 4, 1, 1))
  mine = np.asarray(inception.resize_tf1(x, 8))[0, 0, :, 0]
  np.testing.assert_allclose(mine, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
