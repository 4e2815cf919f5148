import numpy as np
import pytest

from cdm.evaluation.metrics import kid

X = np.random.default_rng(0).normal(size=(9, 4))
Y = np.random.default_rng(1).normal(size=(12, 4)) + 0.5


def test_the_estimate_leaves_out_pairs_of_a_row_with_itself():
  def kernel(a, b):
    return (a @ b / 4 + 1) ** 3

  def mean(rows, others, *, same):
    return np.mean(
      [
        kernel(a, b)
        for i, a in enumerate(rows)
        for j, b in enumerate(others)
        if not (same and i == j)
      ]
    )

  expected = mean(X, X, same=True) + mean(Y, Y, same=True)
  expected -= 2 * mean(X, Y, same=False)
  assert kid.mmd2(X, Y) == pytest.approx(expected, rel=1e-12)


def test_subsets_are_drawn_without_replacement_from_both():
  """Subsets of all rows leave nothing to chance."""
  mean, std = kid.kid(X, Y[:9], size=9, subsets=5)
  assert mean == pytest.approx(kid.mmd2(X, Y[:9])) and std < 1e-12
  assert kid.kid(X, Y, size=5, subsets=20)[1] > 1e-3
  assert kid.kid(X, Y, size=5, seed=1) != kid.kid(X, Y, size=5)


def test_the_measure_takes_the_size_and_names_both_numbers():
  mean, std = kid.kid(X, Y, size=4, subsets=100, seed=2020)
  assert kid.KID.function(X, Y, 4) == {'kid': mean, 'kid_std': std}


@pytest.mark.parametrize('size', [1, 10])
def test_a_subset_has_two_rows_or_more_and_no_more_than_there_are(size):
  kid.kid(X, Y, size=2, subsets=1)
  kid.kid(X, Y, size=9, subsets=1)
  with pytest.raises(ValueError, match='take a size from 2 to 9'):
    kid.kid(X, Y, size=size)


def test_features_of_other_dimensions_are_not_compared():
  with pytest.raises(ValueError, match='of 4 and of 3 dimensions'):
    kid.mmd2(X, Y[:, :3])
  with pytest.raises(ValueError, match='N >= 2'):
    kid.mmd2(X[:1], Y)
