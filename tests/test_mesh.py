"""The mesh changes the speed, not the numbers: the real task on 1 and 8.

On the eight, the batch is cut in eight and the large arrays of the state in
two (`fsdp`).
"""

import house
import numpy as np
import pytest
from house import record, state
from PIL import Image

# Sums over the batch are taken in another order; four steps of Adam at a high
# rate carry that on, furthest where the gradient is rounding alone (the bias
# of a key, which softmax does not feel). Measured against the largest weight
# of an array: 4e-4 in the biases of qkv, 7e-5 elsewhere.
RTOL = 2e-3


@pytest.fixture(scope='module')
def one():
  return house.trained() / 'base'


@pytest.fixture(scope='module')
def eight(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('mesh') / 'eight'
  house.train(
    'smoke', workdir, devices=8, mesh__fsdp=2, train__save_every_steps=4
  )
  return workdir


def test_losses_are_the_same(one, eight):
  for mine, expected in zip(record(eight), record(one), strict=True):
    assert mine == pytest.approx(expected, rel=1e-4)


def test_weights_are_the_same(one, eight):
  expected, mine = state(one, 4), state(eight, 4)
  assert mine.keys() == expected.keys()
  for name, value in expected.items():
    if name.startswith(('params/', 'ema_params/')):
      error = np.abs(mine[name] - value).max() / np.abs(value).max()
      assert error < RTOL, name


def test_samples_are_the_same(one, eight):
  a, b = (
    np.asarray(Image.open(workdir / 'grids' / 'samples_00000004.png'), int)
    for workdir in (one, eight)
  )
  assert np.abs(a - b).max() <= 1
  assert (a != b).mean() < 0.01
