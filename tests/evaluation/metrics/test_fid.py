import numpy as np
import pytest

from cdm.evaluation.metrics import fid

rng = np.random.default_rng


def covariance(d=4):
  x = rng(0).normal(size=(3 * d, d))
  return x.T @ x


@pytest.mark.parametrize(
  ('share', 'is_one'), [(0.0, True), (0.9e-5, True), (1.1e-5, False)]
)
def test_a_covariance_is_symmetric_up_to_the_rounding_of_float32(share, is_one):
  s = covariance()
  s[0, 1] += share * np.abs(s).max()
  if is_one:
    fid.check_covariance(s)
    return
  with pytest.raises(ValueError, match='not symmetric'):
    fid.check_covariance(s)


def test_a_covariance_has_no_negative_variance_and_no_infinity():
  fid.check_covariance(np.zeros((3, 3)))
  fid.check_covariance(np.zeros((0, 0)))
  with pytest.raises(ValueError, match='negative variance'):
    fid.check_covariance(np.diag([1.0, -1e-9]))
  with pytest.raises(ValueError, match='not finite'):
    fid.check_covariance(np.diag([1.0, np.inf]))


@pytest.mark.parametrize(
  ('least', 'is_one'),
  [(1.0, True), (0.0, True), (-0.9e-5, True), (-1.1e-5, False), (-0.01, False)],
)
def test_no_eigenvalue_is_negative_by_more_than_rounding(least, is_one):
  turn = np.linalg.qr(rng(1).normal(size=(3, 3)))[0]
  s = turn @ np.diag([least, 0.5, 1.0]) @ turn.T
  s = (s + s.T) / 2
  if is_one:
    fid.check_eigenvalues(s)
    assert fid.fid(np.zeros(3), s, np.zeros(3), s) == pytest.approx(0, abs=1e-4)
    return
  with pytest.raises(ValueError, match='eigenvalues reach from -'):
    fid.check_eigenvalues(s)
  for pair in ((s, np.eye(3)), (np.eye(3), s)):
    with pytest.raises(ValueError, match='eigenvalues reach from -'):
      fid.fid(np.zeros(3), pair[0], np.zeros(3), pair[1])


def test_a_matrix_of_negative_eigenvalues_alone_is_refused():
  with pytest.raises(ValueError, match='eigenvalues reach from -2 to -1'):
    fid.check_eigenvalues(-np.diag([1.0, 2.0]))


def test_the_measures_name_the_distance_between_what_they_are_given():
  x, y = rng(2).normal(size=(50, 3)), rng(3).normal(size=(50, 3)) + 1
  samples, reference = (
    (m.mean, m.covariance) for m in (fid.moments(x), fid.moments(y))
  )
  expected = fid.fid(*samples, *reference)
  assert expected > 1
  assert fid.FID.function(samples, reference, 0) == {'fid': expected}
  assert fid.FID_SPATIAL.function(samples, reference, 0) == {'sfid': expected}


def test_moments_of_one_row_and_of_none_can_be_merged():
  x = rng(4).normal(size=(2, 3))
  parts = [fid.moments(rows) for rows in (x[:0], x[:1], x[1:])]
  assert [part.count for part in parts] == [0, 1, 1]
  merged = fid.merge(fid.merge(*parts[:2]), parts[2])
  np.testing.assert_allclose(merged.covariance, np.cov(x.T))
