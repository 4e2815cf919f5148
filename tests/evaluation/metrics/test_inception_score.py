import numpy as np
import pytest

from cdm.evaluation.metrics import inception_score as scores

LOGITS = 3 * np.random.default_rng(0).normal(size=(23, 5))


def test_shuffled_parts_of_a_set_give_the_score_of_the_whole():
  """As an evaluation adds them: batches in order, splits by rank."""
  ranks = scores.ranks(23)
  assert sorted(ranks) == list(range(23))
  parts = [
    scores.sums(LOGITS[part], ranks[part], count=23, splits=4)
    for part in (slice(0, 9), slice(9, 10), slice(10, 23))
  ]
  merged = scores.merge(scores.merge(*parts[:2]), parts[2])
  assert merged.images.tolist() == [5, 6, 6, 6]
  expected = scores.inception_score(LOGITS, splits=4, shuffle_seed=scores.SEED)
  assert scores.score(merged) == pytest.approx(expected, rel=1e-12)
  in_order = scores.inception_score(LOGITS, splits=4)
  assert in_order != pytest.approx(expected, rel=1e-3)


def test_the_score_is_that_of_the_formula_split_by_split():
  p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
  each = [
    np.exp((q * np.log(q / q.mean(axis=0))).sum(axis=1).mean())
    for q in np.split(p, [7, 15])
  ]
  found = scores.inception_score(LOGITS, splits=3)
  assert found == pytest.approx((np.mean(each), np.std(each)), rel=1e-12)


def test_every_split_needs_an_image():
  assert scores.inception_score(LOGITS[:1], splits=1) == (1.0, 0.0)
  scores.inception_score(LOGITS, splits=23)
  for splits in (0, 24):
    with pytest.raises(ValueError, match=f'taken over {splits} splits'):
      scores.inception_score(LOGITS, splits=splits)
  with pytest.raises(ValueError, match='Some of the 4 splits'):
    scores.score(scores.sums(LOGITS[:2], np.arange(2), count=23, splits=4))
