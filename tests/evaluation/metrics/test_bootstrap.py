import numpy as np
import pytest

from cdm.evaluation.metrics import bootstrap


@pytest.mark.parametrize('level', [0.5, 0.9, 0.95, 0.99])
def test_an_interval_leaves_half_of_the_rest_out_at_each_end(level):
  found = np.random.default_rng(0).permutation(10_001) / 10_000
  low, high = bootstrap.ends(found, level)
  assert low == pytest.approx((1 - level) / 2, abs=1e-9)
  assert high == pytest.approx((1 + level) / 2, abs=1e-9)


@pytest.mark.parametrize('block', [1, 15, 1 << 20])
def test_means_are_those_of_single_resamples_whatever_the_block(
  monkeypatch, block
):
  """So that an interval does not depend on how many are drawn at once."""
  monkeypatch.setattr(bootstrap, 'BLOCK', block)
  values = np.random.default_rng(0).normal(size=7)
  found = bootstrap.means(values, resamples=21, seed=3)
  assert found.shape == (21,) and found.dtype == np.float64
  expected = bootstrap.interval(values, level=0.8, resamples=21, seed=3)
  np.testing.assert_allclose(bootstrap.ends(found, 0.8), expected, rtol=1e-12)


def test_unless_told_an_interval_is_that_of_2000_resamples_at_95_percent():
  values = np.random.default_rng(0).normal(size=11)
  assert len(bootstrap.means(values)) == 2000
  assert bootstrap.interval(values) == pytest.approx(
    bootstrap.ends(bootstrap.means(values), 0.95), rel=1e-12
  )


def test_two_values_are_enough_for_an_interval():
  assert bootstrap.interval([1.0, 2.0]) == (1.0, 2.0)


@pytest.mark.parametrize('level', [0.0, 1.0, -0.5])
def test_a_level_lies_between_none_and_all(level):
  for inside in (0.001, 0.999):
    low, high = bootstrap.interval(range(9), level=inside, resamples=50)
    assert low <= high
  with pytest.raises(ValueError, match=f'level is {level}; it must lie'):
    bootstrap.interval(range(9), level=level)
