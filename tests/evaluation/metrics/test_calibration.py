"""Calibration of draws whose truth is known: Gaussians.

The truth is N(0, s^2) and the draws N(0, (c s)^2), with s different from value
to value: c = 1 is calibrated, c < 1 overconfident, c > 1 underconfident.
"""

import numpy as np
import pytest

from cdm.evaluation.metrics import calibration

COUNT = 60_000


def toy(k, c, seed=0, center=0.0):
  rng = np.random.default_rng(seed)
  s = 40.0 * rng.random(COUNT) ** 2 + 0.7
  draws = c * s * rng.normal(size=(k, COUNT)) + center
  return calibration.tally(draws, s * rng.normal(size=COUNT))


@pytest.mark.parametrize('k', [2, 3, 4, 8, 15])
def test_calibrated_draws_are_found_calibrated_however_few(k):
  found = toy(k, 1.0)
  assert calibration.spread_skill(found) == pytest.approx(1.0, abs=0.02)
  np.testing.assert_allclose(found.ranks / COUNT, 1 / (k + 1), atol=0.006)
  for said, seen in calibration.coverage(found):
    assert seen == pytest.approx(said, abs=0.01)
  assert calibration.coverage_error(found) < 0.01


@pytest.mark.parametrize('c', [0.5, 0.8, 1.5])
@pytest.mark.parametrize('k', [2, 5, 10])
def test_the_ratio_of_wrong_spreads_is_the_closed_form(k, c):
  """E s^2 = c^2 and E (m - y)^2 = 1 + c^2 / k, both times the variance."""
  found = toy(k, c)
  expected = np.sqrt((1 + 1 / k) * c**2 / (1 + c**2 / k))
  assert calibration.spread_skill(found) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize('c', [0.5, 1.0, 2.0])
def test_coverage_of_two_draws_is_the_closed_form(c):
  """y exceeds both with 1/4 + asin(r) / 2 pi, r = 1 / (1 + c^2) [Sheppard]."""
  found = toy(2, c)
  expected = 0.5 - np.arcsin(1 / (1 + c**2)) / np.pi
  ((said, seen),) = calibration.coverage(found)
  assert said == pytest.approx(1 / 3)
  assert seen == pytest.approx(expected, abs=0.006)
  error = calibration.coverage_error(found)
  assert error == pytest.approx(abs(expected - 1 / 3), abs=0.006)
  bias = calibration.coverage_bias(found)
  assert bias == pytest.approx(expected - 1 / 3, abs=0.006)


def test_many_draws_cover_as_the_normal_distribution_does():
  """With c = 0.5 the central 50% of the draws are +-0.337 s of the truth."""
  found = toy(39, 0.5)
  seen = dict(
    (round(said, 3), seen) for said, seen in calibration.coverage(found)
  )
  assert seen[0.5] == pytest.approx(0.264, abs=0.01)


def test_ranks_tell_what_is_wrong():
  confident, timid, high = (
    toy(4, 0.5).ranks, toy(4, 2.0).ranks, toy(4, 1.0, center=5.0).ranks
  )  # fmt: skip
  assert confident[0] > 1.5 * confident[2] < confident[4]
  assert timid[2] > 1.5 * timid[0] and timid[2] > 1.5 * timid[4]
  assert (np.diff(high) < 0).all()


@pytest.mark.parametrize('k', [3, 4, 8])
@pytest.mark.parametrize('c', [0.5, 1.0, 1.5])
def test_reliability_is_the_closed_form_in_every_bin(k, c):
  """Given its s, a draw left out lies c s sqrt(1 + 1/(k-1)) from the others'
  mean and the truth s sqrt(1 + c^2/(k-1)): the quotient is the same for all."""
  found = calibration.add(toy(k, c, seed) for seed in range(10))
  rows = calibration.reliability(found)
  assert sum(share for *_, share in rows) == pytest.approx(1.0)
  expected = np.sqrt((1 + c**2 / (k - 1)) / (c**2 * (1 + 1 / (k - 1))))
  full = [(p, a) for p, a, share in rows if share > 0.05]
  assert len(full) >= 5 and full[-1][0] > 2 * full[0][0]
  for predicted, actual in full:
    assert actual / predicted == pytest.approx(expected, rel=0.04)


def test_equal_values_share_the_ranks_they_could_have():
  one = calibration.tally(np.full((3, 1), 7), np.full(1, 7))
  np.testing.assert_allclose(one.ranks, 0.25)
  tied = calibration.tally(np.array([[5], [7], [7], [9]]), np.array([7]))
  np.testing.assert_allclose(tied.ranks, [0, 1 / 3, 1 / 3, 1 / 3, 0])
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 3, (6, 20_000)).astype(np.uint8)
  found = calibration.tally(coarse[:5], coarse[5])
  np.testing.assert_allclose(found.ranks / 20_000, 1 / 6, atol=0.006)


def test_tallies_of_images_add_up():
  rng = np.random.default_rng(0)
  draws, truth = rng.normal(size=(4, 6, 5)), rng.normal(size=(6, 5))
  whole = calibration.tally(draws, truth)
  parts = calibration.add(
    calibration.tally(draws[:, i], truth[i]) for i in range(6)
  )
  for a, b in zip(whole, parts, strict=True):
    np.testing.assert_allclose(a, b)
  other = calibration.tally(draws[:3], truth)
  with pytest.raises(ValueError, match='the same number of draws'):
    calibration.add([whole, other])


def test_no_error_has_no_ratio():
  same = np.zeros((3, 8))
  assert np.isnan(calibration.spread_skill(calibration.tally(same, same[0])))


@pytest.mark.parametrize('shape', [(1, 4), (3, 5)])
def test_what_has_no_spread_is_refused(shape):
  with pytest.raises(ValueError, match='two draws or more of the shape'):
    calibration.tally(np.zeros(shape), np.zeros(4))
