"""Metrics of features: stored numbers of public code, and closed forms."""

import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.evaluation.metrics import bootstrap
from cdm.evaluation.metrics.fid import Moments, fid, merge, moments
from cdm.evaluation.metrics.inception_score import inception_score
from cdm.evaluation.metrics.kid import kid, mmd2
from cdm.evaluation.metrics.precision_recall import precision_recall

rng = np.random.default_rng


@pytest.fixture(scope='module')
def stored():
  """-> (keys, arrays, {name: (X1, X2) or logits}) by the oracle's recipes."""
  description, arrays = oracle('fid_stats')
  made = {}
  for name in ('d64', 'd2048', 'logits'):
    space = {'numpy': np, **description['settings']}
    exec(description['recipes'][name], space)
    made[name] = (
      space['logits'] if name == 'logits' else (space['X1'], space['X2'])
    )
  return description['keys'], arrays, made


def of(features):
  """-> moments, gathered in three uneven parts."""
  first, second, third = np.split(features, [7, len(features) // 2])
  return merge(moments(first), merge(moments(second), moments(third)))


def distance(x, y):
  a, b = of(x), of(y)
  return fid(a.mean, a.covariance, b.mean, b.covariance)


def matches(stored, key, mine):
  keys, arrays, _ = stored
  assert_matches(mine, arrays[key], keys[key]['tol'], key)


def test_moments_in_parts_equal_those_of_the_whole(stored):
  for index, x in enumerate(stored[2]['d64'], 1):
    found = of(x)
    assert found.count == len(x)
    matches(stored, f'd64/mu{index}', found.mean)
    matches(stored, f'd64/sigma{index}', found.covariance)


@pytest.mark.parametrize('name', ['d64', 'd2048'])
def test_fid_equals_the_peers(stored, name):
  found = distance(*stored[2][name])
  for peer in ('eigh', 'pytorch_fid', 'torch_fidelity'):
    matches(stored, f'{name}/fid_{peer}', found)


@pytest.mark.parametrize('name', ['d64', 'd2048'])
def test_fid_of_fewer_images_than_dimensions_is_the_formulas(stored, name):
  x, y = stored[2][name]
  matches(stored, f'{name}/fid_first500_eigh', distance(x[:500], y[:500]))


def test_fid_of_gaussians_on_their_axes_is_the_closed_form():
  m, n = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 5.0])
  s, t = np.array([4.0, 1.0, 0.0]), np.array([1.0, 9.0, 4.0])
  expected = 5.0 + ((np.sqrt(s) - np.sqrt(t)) ** 2).sum()
  assert fid(m, np.diag(s), n, np.diag(t)) == pytest.approx(expected)
  turn = np.linalg.qr(rng(0).normal(size=(3, 3)))[0]
  turned = (turn @ np.diag(v) @ turn.T for v in (s, t))
  first, second = turned
  found = fid(turn @ m, first, turn @ n, second)
  assert found == pytest.approx(expected)


def spanned(n, m, *, d=96, scales=1.0, dead=0):
  """-> ((mean, covariance), (mean, covariance), FID from the features).

  With X of covariance X^T X the trace of the root is the sum of the singular
  values of X_1 X_2^T: nothing is squared, so no digits are lost.
  """
  draw = rng(n + m)
  turn = np.linalg.qr(draw.normal(size=(d, d)))[0]
  gaussians, spans = [], []
  for count, gain in ((n, 1.0), (m, 1.2)):
    x = np.maximum(draw.normal(size=(count, d)) + 0.3, 0) * scales @ turn * gain
    x[:, :dead] = 0
    mean = x.mean(axis=0)
    x = (x - mean) / np.sqrt(count - 1)
    gaussians.append((mean, x.T @ x))
    spans.append(x)
  a, b = spans
  gap = gaussians[0][0] - gaussians[1][0]
  value = gap @ gap + (a * a).sum() + (b * b).sum()
  value -= 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
  return *gaussians, value


@pytest.mark.parametrize(
  'given',
  [
    dict(n=300, m=400),
    dict(n=40, m=50),  # both singular
    dict(n=40, m=300),
    dict(n=300, m=40),
    dict(n=97, m=97),  # just regular
    dict(n=96, m=96),  # just not
    dict(n=300, m=300, dead=9),
    dict(n=300, m=300, scales=np.logspace(-6, 1, 96)),
    dict(n=2, m=2),
  ],
  ids=lambda given: '-'.join(given) + f'-{given["n"]}-{given["m"]}',
)
def test_fid_of_singular_and_ill_conditioned_covariances_is_exact(given):
  first, second, expected = spanned(**given)
  assert fid(*first, *second) == pytest.approx(expected, rel=1e-10)
  assert fid(*second, *first) == pytest.approx(expected, rel=1e-10)
  assert abs(fid(*first, *first)) < 1e-10 * np.trace(first[1])


def test_a_pivot_that_is_rounding_is_none():
  """S_1 = v v^T, of which Cholesky's factor is found in some cases."""
  for seed in range(50):
    v, m = rng(seed).normal(size=3), np.zeros(3)
    expected = v @ v + 6.0 - 2.0 * np.sqrt(v @ np.diag([1.0, 2.0, 3.0]) @ v)
    found = fid(m, np.outer(v, v), m, np.diag([1.0, 2.0, 3.0]))
    assert found == pytest.approx(expected, rel=1e-11)


def test_fid_of_images_that_are_all_the_same_is_the_rest():
  m, s = np.ones(3), np.diag([1.0, 2.0, 3.0])
  nothing = np.zeros((3, 3))
  assert fid(m, nothing, m, s) == pytest.approx(6.0)
  assert fid(m, nothing, 0 * m, nothing) == pytest.approx(3.0)


def test_a_large_mean_costs_the_covariance_no_digits():
  x = rng(0).normal(size=(4000, 5))
  near, far = of(x), of(x + 1e6)
  np.testing.assert_allclose(far.covariance, near.covariance, atol=1e-8)


@pytest.mark.parametrize('splits', [1, 10])
def test_inception_score_equals_torch_fidelity(stored, splits):
  logits = stored[2]['logits']
  for seed, name in ((None, 'shuffle0'), (2020, 'shuffle1')):
    found = inception_score(logits, splits=splits, shuffle_seed=seed)
    matches(stored, f'is/splits{splits}_{name}', found)


def test_inception_score_reaches_from_one_to_the_number_of_classes():
  certain = 1e3 * np.eye(10)[np.arange(100) % 10]
  assert inception_score(certain, splits=5) == pytest.approx((10.0, 0.0))
  assert inception_score(np.zeros((100, 10)))[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
  ('name', 'subsets', 'size'), [('d64', 100, 1000), ('d2048', 20, 500)]
)
def test_kid_equals_torch_fidelity(stored, name, subsets, size):
  found = kid(*stored[2][name], subsets=subsets, size=size)
  matches(stored, f'{name}/kid_subsets', found)


@pytest.mark.parametrize('name', ['d64', 'd2048'])
def test_mmd_equals_the_formula(stored, name):
  x, y = stored[2][name]
  matches(stored, f'{name}/kid_full_first1500', mmd2(x[:1500], y[:1500]))


@pytest.mark.parametrize('k', [3, 5])
def test_precision_and_recall_equal_the_peers(stored, k):
  x, y = (features[:1500] for features in stored[2]['d64'])
  found = precision_recall(x, y, k=k, block=400)
  for peer in ('exact', 'torch_fidelity', 'adm'):
    matches(stored, f'd64/prec_recall_k{k}_{peer}', found)


def test_precision_and_recall_count_what_lies_in_the_balls():
  real = np.array([[0.0], [1.0], [2.0], [10.0]])
  made = np.array([[0.5], [2.5], [30.0]])
  # Radii of the real ones: 1, 1, 1, 8; of the made ones: 2, 2, 27.5.
  found = precision_recall(real, made, k=1, block=2)
  assert found == (2 / 3, 1.0)


def exactly(real, made, k):
  """Precision and recall by float64 distances, one by one."""

  def distances(x, y):
    gap = x[:, None].astype(np.float64) - y[None]
    return (gap * gap).sum(-1)

  def radii(x):
    return np.sort(distances(x, x), axis=1)[:, k]

  between = distances(made, real)
  inside = (between <= radii(real)).any(axis=1).mean()
  return inside, (between <= radii(made)[:, None]).any(axis=0).mean()


@pytest.mark.parametrize('gap', [1e-2, 1e-3, 1e-4])
def test_decisions_are_those_of_float64_where_float32_has_no_digits(gap):
  """Two far clusters, so that |a|^2 + |b|^2 - 2ab is rounding alone."""
  draw = rng(3)
  base = np.where(np.arange(240) % 2, 30.0, -30.0)[:, None]
  real, made = (
    (base + gap * draw.normal(size=(240, 16))).astype(np.float32)
    for _ in range(2)
  )
  made[:5] = real[:5]
  found = precision_recall(real, made, k=3, block=64)
  assert found == exactly(real, made, 3)
  assert 0 < found[0] < 1 or gap < 1e-3


def test_an_interval_covers_the_mean_as_often_as_it_says():
  inside = 0
  for seed in range(200):
    low, high = bootstrap.interval(
      rng(seed).normal(3.0, 1.0, 40), level=0.9, resamples=300, seed=seed
    )
    inside += low <= 3.0 <= high
  assert 0.83 < inside / 200 < 0.95


@pytest.mark.parametrize(
  ('call', 'complaint'),
  [
    (lambda: moments(np.zeros(3)), r'\(3,\); expected \[N, D\]'),
    (lambda: moments(np.full((2, 3), np.nan)), 'not finite'),
    (
      lambda: merge(moments(np.ones((2, 3))), moments(np.ones((2, 4)))),
      'of 3 and of 4 dimensions',
    ),
    (lambda: moments(np.ones((1, 3))).covariance, 'two images or more; .* 1'),
    (
      lambda: fid(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)),
      r'\(2,\), \(2, 2\) and \(3,\), \(3, 3\)',
    ),
    (
      lambda: fid(np.zeros(1), np.eye(1), np.zeros(1), np.eye(1) * np.inf),
      'not finite; make them again',
    ),
    (
      lambda: fid(np.zeros(2), np.eye(2), np.zeros(2), np.diag([1.0, -0.1])),
      'not symmetric, or has a negative variance',
    ),
    (
      lambda: fid(np.zeros(2), [[1, 0.1], [0, 1]], np.zeros(2), np.eye(2)),
      'not symmetric, or has a negative variance',
    ),
    (
      lambda: fid(np.zeros(2), np.eye(2), np.zeros(2), [[1, 2], [2, 1]]),
      'eigenvalues reach from -1 to 3, and none may be negative',
    ),
    (
      lambda: fid(np.zeros(2), [[1, 2], [2, 1]], np.zeros(2), np.eye(2)),
      'eigenvalues reach from -1 to 3',
    ),
    (lambda: inception_score(np.zeros((4, 9))), '4 images .* 10 splits'),
    (
      lambda: kid(np.zeros((9, 2)), np.zeros((5, 2))),
      'subsets of 1000 .* 9 and 5; take a size from 2 to 5',
    ),
    (
      lambda: precision_recall(np.zeros((9, 2)), np.zeros((3, 2))),
      'neighbour 3, but the smaller set has 3',
    ),
    (
      lambda: precision_recall(np.zeros((9, 2)), np.zeros((9, 3))),
      r'\(9, 2\) and \(9, 3\)',
    ),
    (lambda: bootstrap.interval([1.0]), 'there are 1'),
    (lambda: bootstrap.interval([1.0, 2.0], level=95), 'between 0 and 1'),
  ],
)
def test_bad_input_is_named(call, complaint):
  with pytest.raises(ValueError, match=complaint):
    call()


def test_nothing_and_something_is_something():
  x = rng(1).normal(size=(5, 2))
  empty = Moments(0, np.zeros(2), np.zeros((2, 2)))
  assert merge(empty, moments(x)).count == merge(moments(x), empty).count == 5
