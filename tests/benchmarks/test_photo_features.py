"""The features that crops of photographs are judged by."""

import importlib.util
import io
import json
import pathlib
import sys
import zipfile

import numpy as np
import pytest
from support import oracles

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
PROGRAM = [
  {'op': 'input', 'x': 0, 'y': 1},
  {'op': 'conv', 'name': 'A', 'x': 1, 'y': 2, 'stride': 1, 'act': 'relu6'},
  {'op': 'dw', 'name': 'B', 'x': 2, 'y': 3, 'stride': 2, 'act': 'none'},
  {'op': 'conv', 'name': 'A2', 'x': 3, 'y': 4, 'stride': 1, 'act': 'none'},
  {'op': 'add', 'x': 3, 'x2': 4, 'y': 5},
  {'op': 'mean', 'x': 5, 'y': 6},
]


@pytest.fixture(scope='module')
def photo_features():
  return _module('photo_features')


def _module(name):
  sys.path.insert(0, str(BENCHMARKS))
  try:
    return importlib.import_module(name)
  finally:
    sys.path.remove(str(BENCHMARKS))


def test_features_are_the_published_ones(photo_features):
  path = oracles.data('metric_nets.zip')
  with zipfile.ZipFile(path) as archive:
    golden = np.load(
      io.BytesIO(archive.read('metric_nets/mobilenet_v2_golden.npz'))
    )
    given = {name: golden[name] for name in ('x', 'feat')}
  found = photo_features.MobileNet(path, batch=2)(given['x'][:2])
  np.testing.assert_allclose(found, given['feat'][:2], atol=5e-5)


def test_a_program_of_weights_in_8_bits_is_run(photo_features, tmp_path):
  """Every operation beside NumPy's, on images of one pixel and of four."""
  rng = np.random.default_rng(0)
  arrays = {}
  for name, shape, at in (
    ('A', (3, 1, 1, 3), 0),
    ('B', (1, 1, 1, 3), 3),
    ('A2', (3, 1, 1, 3), 0),
  ):
    arrays[f'{name}_w'] = rng.integers(-9, 9, shape, np.int8)
    arrays[f'{name}_ws'] = rng.uniform(0.1, 1, shape[at]).astype(np.float32)
    arrays[f'{name}_b'] = rng.normal(size=shape[at] or 3).astype(np.float32)
  program = [
    step | {'wdim': 3 if step['op'] == 'dw' else 0} if 'name' in step else step
    for step in PROGRAM
  ]
  arrays['program'] = np.frombuffer(json.dumps(program).encode(), np.uint8)
  with zipfile.ZipFile(tmp_path / 'nets.zip', 'w') as archive:
    file = io.BytesIO()
    np.savez(file, **arrays)
    archive.writestr(f'some/{photo_features.NAME}', file.getvalue())
  images = rng.integers(0, 256, (101, 4, 4, 3), np.uint8)

  def kernel(name):
    w = arrays[f'{name}_w'].astype(float)
    if name == 'B':
      return np.diag(w[0, 0, 0] * arrays['B_ws'])
    return (w[:, 0, 0] * arrays[f'{name}_ws'][:, None]).T  # [in, out]

  x = images.astype(float) / 127.5 - 1
  x = np.clip(x @ kernel('A') + arrays['A_b'], 0, 6)
  x = x[:, ::2, ::2] @ kernel('B') + arrays['B_b']
  x = x + x @ kernel('A2') + arrays['A2_b']
  found = photo_features.MobileNet(tmp_path / 'nets.zip')(images)
  np.testing.assert_allclose(found, x.mean((1, 2)), rtol=1e-4, atol=1e-4)
  zipfile.ZipFile(tmp_path / 'empty.zip', 'w').close()
  with pytest.raises(ValueError, match='holds no mobilenet'):
    photo_features.MobileNet(tmp_path / 'empty.zip')


class Twice:
  """A stand-in for a stage: a photograph and bicubic, blended by detail."""

  def __init__(self, photo_sets, pair, most):
    self._bicubic = photo_sets.bicubic(pair.low)
    self._truth = pair.original.astype(np.float32) / 127.5 - 1
    self._most = most

  def __call__(self, low, damage, how):
    w = self._most * how.detail
    seam = 0.01 if how.window == 256 and self._most < 1 else 0.0
    return self._bicubic + w * (self._truth - self._bicubic) + seam


@pytest.mark.parametrize(('most', 'passes'), [(1.0, True), (0.0, False)])
def test_crops_of_a_draw_are_judged_beside_the_originals(most, passes):
  """A draw that is the original has distance 0; bicubic's own is too far."""
  photo_sets, photo_crops, photo_judged = map(
    _module, ('photo_sets', 'photo_crops', 'photo_judged')
  )
  original = np.random.default_rng(0).integers(0, 256, (160, 192, 3), np.uint8)
  low = np.asarray(
    photo_crops.resize.resize_uint8(original, (40, 48), method='bicubic')
  )
  pair = photo_sets.Pair('noise', original, low)
  judged = photo_judged.Judged()
  seen = []

  def features(crops):
    seen.append(crops)
    grey = crops.astype(float).mean(-1)
    return np.stack([grey.mean((1, 2)), grey.std((1, 2))], -1)

  photo_crops.judge(Twice(photo_sets, pair, most), [pair], features, judged)
  assert all(crops.shape == (20, 64, 64, 3) for crops in seen)  # 4 x 5 places
  np.testing.assert_array_equal(seen[0][6], original[32:96, 32:96])
  rows = {(row['measure'], row.get('of')): row for row in judged.rows}
  assert rows['crop_distance', None]['passed'] is passes
  assert rows['seam', None]['passed'] is passes
  assert rows['distance', 'bicubic']['value'] > 10
  assert rows['texture', 'bicubic']['value'] < 0.1
  consistent = rows['consistency', 'detail 1']
  if passes:
    assert rows['distance', 'detail 1']['value'] == pytest.approx(0, abs=1e-6)
    assert rows['texture', 'detail 1']['value'] == pytest.approx(1)
    assert consistent['value'] < 1 and consistent['passed'] is True
  assert judged.passed is passes
