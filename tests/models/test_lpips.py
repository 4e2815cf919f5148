"""LPIPS equals the published package's arithmetic, backbone by backbone."""

import json

import jax
import numpy as np
import pytest
from support import published_weights, smoke_runs
from support.oracles import assert_matches, oracle, rule_weights

from cdm.evaluation import paired_metrics
from cdm.evaluation.lpips_scorer import LpipsScorer
from cdm.models import lpips
from cdm.models.lpips import Lpips
from cdm.models.pretrained import pytorch_file


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
  published_weights.write_pytorch(folder / 'net.pth', features, zipped=True)
  published_weights.write_pytorch(folder / 'heads.pth', heads, zipped=False)
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


@pytest.mark.parametrize(('backbone', 'layer'), [('alex', 2), ('squeeze', 3)])
def test_a_feature_map_is_the_one_that_lpips_reads(tmp_path, backbone, layer):
  """Of the same images, whose values are -1..1 here and 0..255 there."""
  *_, features, heads = files(tmp_path, backbone)
  net = Lpips(backbone)
  params = lpips.from_pytorch(features, heads, net)
  image = np.random.default_rng(2).integers(0, 256, (2, 64, 64, 3), np.uint8)
  stack = lpips.Stack(lpips.BACKBONES[backbone])
  taps = stack.apply({'params': params['features']}, lpips._scaled(image))
  found = lpips.read_feature_map(features, backbone, layer)
  mine = found(image.astype(np.float32) / 127.5 - 1)
  scale = np.abs(taps[layer - 1]).max()
  np.testing.assert_allclose(mine, taps[layer - 1], atol=1e-4 * scale)
  assert len(found.params) < len(params['features'])


def test_weights_of_another_backbone_are_refused(tmp_path):
  *_, features, heads = files(tmp_path, 'alex')
  with pytest.raises(ValueError, match=r'11, 3, 64\) in .* LPIPS with vgg'):
    lpips.from_pytorch(features, heads, Lpips('vgg'))
  heads['lin0.model.1.weight'] = np.ones((1, 3, 1, 1))
  with pytest.raises(ValueError, match=r'lin0.* is \(3,\) .* has \(64,\)'):
    lpips.from_pytorch(features, heads, Lpips('alex'))


def test_pairs_are_scored_with_published_files(tmp_path):
  first, second, *_ = files(tmp_path, 'alex')
  rng = np.random.default_rng(0)
  a = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
  b = a.copy()
  b[1] = 255 - b[1]
  measure = LpipsScorer('alex', (first, second))
  row = paired_metrics.evaluate_pairs([a], [b], perceptual=measure)
  assert measure(a[0], b[0]) == 0.0
  assert row['lpips'] == pytest.approx(measure(a[1], b[1]) / 2)
  assert 'v0.1 with alex' in row['conventions']['lpips']
  np.savez(tmp_path / 'a.npz', arr_0=a)
  np.savez(tmp_path / 'b.npz', arr_0=b)
  words = ('evaluate', f'--samples={tmp_path / "a.npz"}')
  words += (f'--reference={tmp_path / "b.npz"}', '--metrics=lpips,psnr')
  out = tmp_path / 'row.json'
  given = f'--lpips_weights={first},{second}'
  assert smoke_runs.cdm(*words, given, f'--out={out}') == 0
  found = json.loads(out.read_text(encoding='utf-8'))
  assert found['lpips'] == pytest.approx(row['lpips'])
  assert set(found['conventions']) == {'lpips', 'psnr'}


@pytest.mark.parametrize(
  ('backbone', 'weights', 'message'),
  [
    ('resnet', ('a', 'b'), "'resnet'; known are alex"),
    ('alex', ('no.pth', 'b'), 'no.pth is not there. LPIPS takes two files'),
  ],
)
def test_missing_files_are_named(backbone, weights, message):
  with pytest.raises(ValueError, match=message):
    LpipsScorer(backbone, weights)


def test_an_unknown_backbone_is_refused():
  image = np.zeros((1, 64, 64, 3), np.uint8)
  with pytest.raises(ValueError, match="'resnet'; known are alex, vgg"):
    Lpips('resnet').init(jax.random.key(0), image, image)
