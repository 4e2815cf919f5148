"""LPIPS equals the published package's arithmetic, backbone by backbone."""

import jax
import numpy as np
import published
import pytest
from shared import assert_matches, oracle, rule_weights

from cdm.models import lpips, pytorch_file
from cdm.models.lpips import Lpips


@pytest.mark.parametrize('backbone', ['alex', 'vgg', 'squeeze'])
def test_distances_equal_the_packages(backbone):
  description, arrays = oracle('lpips_structure')
  weights = description['weights'][backbone]
  entries = [e for e in weights['entries'] if e[2] != 'const']
  state = rule_weights(weights | {'entries': entries})
  net = Lpips(backbone)
  params = lpips.from_pytorch(state, state, net)
  apply = jax.jit(lambda p, a, b: net.apply({'params': p}, a, b))
  mine = np.asarray(apply(params, arrays['img0'], arrays['img1']))
  keys = description['keys']
  for name, value in (('lpips', mine.sum(axis=1)), ('per_layer', mine)):
    key = f'{backbone}/{name}'
    assert_matches(value, arrays[key], keys[key]['tol'], key)


def files(folder, backbone):
  """-> paths of a backbone and of its heads, as they are published."""
  rng = np.random.default_rng(0)
  features, heads = {}, {}
  for path, shape in lpips._shapes(Lpips(backbone)).items():
    value = rng.normal(size=shape).astype(np.float32)
    if path[0] != 'features':
      heads[f'{path[0]}.model.1.weight'] = value[None, :, None, None]
      continue
    name = path[1].replace('_', '.')
    if path[-1] == 'kernel':
      value = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
    leaf = 'weight' if path[-1] == 'kernel' else 'bias'
    features[f'features.{name}.{leaf}'] = value
  features['classifier.1.weight'] = np.ones((2, 2), np.float32)
  published.write_pytorch(folder / 'net.pth', features, zipped=True)
  published.write_pytorch(folder / 'heads.pth', heads, zipped=False)
  return folder / 'net.pth', folder / 'heads.pth', features, heads


@pytest.mark.parametrize('backbone', ['alex', 'squeeze'])
def test_published_files_are_read(tmp_path, backbone):
  first, second, features, heads = files(tmp_path, backbone)
  params = lpips.from_pytorch(
    pytorch_file.read(first), pytorch_file.read(second), Lpips(backbone)
  )
  np.testing.assert_array_equal(
    params['features']['0']['kernel'],
    features['features.0.weight'].transpose(2, 3, 1, 0),
  )
  np.testing.assert_array_equal(
    params['lin1'], heads['lin1.model.1.weight'][0, :, 0, 0]
  )


def test_weights_of_another_backbone_are_refused(tmp_path):
  *_, features, heads = files(tmp_path, 'alex')
  with pytest.raises(ValueError, match=r'11, 3, 64\) in .* LPIPS with vgg'):
    lpips.from_pytorch(features, heads, Lpips('vgg'))
  heads['lin0.model.1.weight'] = np.ones((1, 3, 1, 1))
  with pytest.raises(ValueError, match=r'lin0.* is \(3,\) .* has \(64,\)'):
    lpips.from_pytorch(features, heads, Lpips('alex'))


def test_an_unknown_backbone_is_refused():
  image = np.zeros((1, 64, 64, 3), np.uint8)
  with pytest.raises(ValueError, match="'resnet'; known are alex, vgg"):
    Lpips('resnet').init(jax.random.key(0), image, image)
