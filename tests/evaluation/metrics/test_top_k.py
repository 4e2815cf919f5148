"""Top-k against counting by hand and against sorted lists."""

import numpy as np
import pytest

from cdm.evaluation.metrics import top_k


def test_top_1_and_top_5_equal_a_sorted_list():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(500, 12)).astype(np.float32)
  labels = rng.integers(0, 12, 500)
  found = top_k.ranks(logits, labels)
  for k in (1, 5, 12):
    first = np.argsort(-logits, axis=1)[:, :k]
    right = sum(label in row for label, row in zip(labels, first, strict=True))
    assert top_k.top_k(found, k) == right / 500
  assert 0.03 < top_k.top_k(found, 1) < 0.15  # chance is 1 / 12


def test_ranks_counted_by_hand():
  logits = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
  np.testing.assert_array_equal(
    top_k.ranks(logits, np.array([1, 2, 0])), [0, 1, 2]
  )


def test_who_says_the_same_of_every_class_is_never_right():
  found = top_k.ranks(np.zeros((4, 10)), np.arange(4))
  np.testing.assert_array_equal(found, 9)
  assert top_k.top_k(found, 5) == 0.0


def test_one_tie_costs_one_rank():
  found = top_k.ranks(np.array([[3.0, 3.0, 1.0]]), np.array([0]))
  assert found == [1]


@pytest.mark.parametrize(
  ('logits', 'labels', 'message'),
  [
    (np.zeros((2, 3)), [0, 3], 'Labels lie in 0 to 3, but .* has 3 classes'),
    (np.zeros((2, 3)), [-1, 0], 'Labels lie in -1 to 0'),
    (np.zeros((2, 3)), [0], r'\(2, 3\) and labels \(1,\)'),
    (np.zeros((2, 3)), [0.0, 1.0], 'float64; they must be integers'),
    ([[0.0, 1.0], [np.nan, 0.0]], [0, 0], 'logits of image 1 are not finite'),
    ([[0.0, np.inf]], [1], 'logits of image 0 are not finite'),
  ],
)
def test_what_has_no_rank_is_refused(logits, labels, message):
  with pytest.raises(ValueError, match=message):
    top_k.ranks(np.asarray(logits), np.asarray(labels))
