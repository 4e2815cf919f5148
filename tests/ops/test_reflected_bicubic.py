"""The filter of PULSE against its public code, and against our resize."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.ops import resize
from cdm.ops.reflected_bicubic import shrink, shrink_weights


@pytest.mark.parametrize('factor', [4, 8, 32])
def test_shrinking_is_that_of_the_published_code(factor):
  tables, arrays = oracle('pulse')
  given, key = arrays[f'bicubic/{factor}/in'], f'bicubic/{factor}/out'
  size = given.shape[-1] // factor
  x = shrink(jnp.asarray(given).transpose(0, 2, 3, 1), size)
  tol = tables['keys'][key]['tol']
  assert_matches(x.transpose(0, 3, 1, 2), arrays[key], tol)


@pytest.mark.parametrize('length, size', [(64, 16), (24, 4), (8, 2), (6, 1)])
def test_it_is_our_bicubic_filter_away_from_the_border(length, size):
  ours = resize.resize_weights(length, size, method='bicubic')
  weights = shrink_weights(length, size)
  np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
  inner = slice(2, size - 2)  # the filter reaches two low-res pixels
  np.testing.assert_allclose(weights[inner], ours[inner], atol=1e-12)


@pytest.mark.parametrize('length, size', [(24, 8), (10, 4), (8, 8)])
def test_a_factor_that_is_not_even_is_refused(length, size):
  with pytest.raises(ValueError, match=f'{length} pixels .* to {size} by'):
    shrink(jnp.zeros((1, length, length, 3)), size)
