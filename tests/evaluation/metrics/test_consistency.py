import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.evaluation.metrics.consistency import convention
from cdm.methods import lowres_conditioning
from cdm.ops import pixels, resize
from cdm.ops.pair_scores import consistency


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize('rounding', ['pil_uint8', 'float_aa'])
def test_consistency_equals_that_through_pillow_and_torch(rounding):
  description, stored = oracle('image_metrics')
  keys = [k for k in description['keys'] if k.endswith('/' + rounding)]
  assert len(keys) == 16
  for key in keys:
    name, _, kind, _ = key.split('/')
    mine = consistency(
      stored[f'img/{name}/{kind}'][None],
      stored[f'{name}/consistency/lr'][None],
      rounded=rounding == 'pil_uint8',
    )
    tol = description['keys'][key]['tol']
    assert_matches(mine[0] * 255**2, stored[key], tol, key)


@pytest.mark.parametrize('method', resize.METHODS)
def test_the_original_agrees_with_its_low_res_image_exactly(method):
  """The input that training makes is the one that this metric makes."""
  originals = noise(2, 32, 32, 3)
  lowres = lowres_conditioning.Lowres(size=8, downsample=method)
  z_0 = lowres_conditioning.downsample(pixels.to_float(originals), lowres)
  low = np.asarray(pixels.to_uint8(z_0))
  np.testing.assert_array_equal(
    consistency(originals, low, method=method), [0.0, 0.0]
  )


def test_a_shift_of_one_level_is_one_over_255_squared():
  """In SR3's units of 1e-5 that is 1.54, beside its published 2.68."""
  a = np.full((1, 16, 16, 3), 100, np.uint8)
  low = np.full((1, 4, 4, 3), 101, np.uint8)
  for rounded in (True, False):
    value = consistency(a, low, rounded=rounded)
    np.testing.assert_allclose(value * 1e5, 1.5379, rtol=1e-4)


def test_detail_that_the_low_res_image_cannot_hold_costs_nothing():
  a = np.full((1, 16, 16, 3), 100, np.uint8)
  a[:, ::2, ::2] += 40
  a[:, 1::2, 1::2] -= 40
  low = np.full((1, 4, 4, 3), 100, np.uint8)
  np.testing.assert_array_equal(consistency(a, low, method='area'), [0.0])


def test_the_convention_names_the_filter_and_the_rounding():
  assert 'bicubic' in convention('bicubic')
  assert 'rounded to uint8 as Pillow' in convention('area')
  assert 'not rounded' in convention('area', rounded=False)


@pytest.mark.parametrize(
  'sr, lowres, message',
  [
    (noise(1, 8, 8, 3), noise(1, 16, 16, 3), 'is no larger'),
    (noise(1, 8, 8, 3), noise(1, 4, 2, 3), 'same aspect ratio'),
    (noise(2, 8, 8, 3), noise(1, 4, 4, 3), r'shapes are \(2, 8, 8, 3\)'),
    (noise(8, 8, 3), noise(4, 4, 3), r'N, H, W, C'),
    (np.ones((1, 8, 8, 3)), noise(1, 4, 4, 3), 'uint8.*float64'),
  ],
)
def test_what_is_no_such_pair_is_refused(sr, lowres, message):
  with pytest.raises(ValueError, match=message):
    consistency(sr, lowres)
