"""Intervals and strengths against closed forms and other programs' numbers."""

import math

import numpy as np
import pytest

from cdm.evaluation.human import bradley_terry, cluster_bootstrap, wilson

Z = 1.959963984540054  # of 95%


@pytest.mark.parametrize(
  'chosen, trials, expected',
  [
    # Computed by another formula for the plan of a study, per cent.
    (20, 50, (27.6, 53.8)),
    (200, 500, (35.8, 44.4)),
    (1000, 2500, (38.1, 41.9)),
  ],
)
def test_wilson_gives_known_intervals(chosen, trials, expected):
  found = np.round(100 * np.array(wilson.interval(chosen, trials)), 1)
  assert tuple(found) == expected


@pytest.mark.parametrize('chosen, trials', [(1, 7), (3, 9), (25, 50)])
def test_wilson_inverts_the_score_test(chosen, trials):
  """At both ends q, the observed share is z standard errors of q away."""
  share = chosen / trials
  for q in wilson.interval(chosen, trials):
    error = math.sqrt(q * (1 - q) / trials)
    assert abs(share - q) / error == pytest.approx(Z, rel=1e-9)


def test_wilson_at_the_ends():
  assert wilson.interval(0, 5)[0] == 0.0
  assert wilson.interval(5, 5)[1] == 1.0
  # n / (n + z^2), the closed form for no failure.
  assert wilson.interval(5, 5)[0] == pytest.approx(5 / (5 + Z**2))
  with pytest.raises(ValueError, match='6 of 5 trials is no share'):
    wilson.interval(6, 5)


def test_wilson_holds_the_share_as_often_as_it_says():
  """Exact coverage, a sum over the binomial distribution."""
  n, p = 50, 0.4
  covered = sum(
    math.comb(n, k) * p**k * (1 - p) ** (n - k)
    for k in range(n + 1)
    if wilson.interval(k, n)[0] <= p <= wilson.interval(k, n)[1]
  )
  assert 0.93 < covered < 0.97


# How often the row was chosen over the column; strengths of choix 0.4.1,
# mm_pairwise and ilsr_pairwise, which agree in all digits shown.
CHOIX = [
  (
    [[0, 7, 9, 12], [5, 0, 8, 10], [3, 4, 0, 9], [1, 2, 6, 0]],
    [0.9089962, 0.48532909, -0.37549959, -1.0188257],
  ),
  ([[0, 30, 0], [10, 0, 5], [0, 15, 0]], [0.3662041, -0.73240819, 0.3662041]),
]


@pytest.mark.parametrize('wins, expected', CHOIX)
def test_strengths_are_those_of_choix(wins, expected):
  found = bradley_terry.strengths(np.array(wins))
  np.testing.assert_allclose(found, expected, atol=1e-7)
  both = bradley_terry.strengths(np.array([wins, wins]))
  np.testing.assert_allclose(both, [expected, expected], atol=1e-7)


def test_of_two_methods_the_odds_are_those_of_the_counts():
  found = bradley_terry.strengths(np.array([[0, 30], [10, 0]]))
  assert found[0] - found[1] == pytest.approx(math.log(3))


def test_a_method_that_always_wins_has_no_finite_strength():
  wins = np.array([[0, 4, 4], [0, 0, 2], [0, 2, 0]])
  assert not bradley_terry.connected(wins)
  assert bradley_terry.connected(bradley_terry.smoothed(wins))
  assert np.isfinite(
    bradley_terry.strengths(bradley_terry.smoothed(wins))
  ).all()


@pytest.mark.parametrize('by', ['persons', 'scenes'])
def test_the_bootstrap_widens_with_what_trials_share(by):
  """Of one answer each, 20 persons (or scenes) tell no more than 20 trials."""
  rng = np.random.default_rng(0)
  persons, scenes = 20, 40
  count = np.ones((persons, scenes))
  alone = rng.random((persons, scenes)) < 0.4
  shared = np.repeat(rng.random((persons, 1)) < 0.4, scenes, axis=1)
  if by == 'scenes':
    count, alone, shared = count.T, alone.T, shared.T
  drawn = cluster_bootstrap.draw(*count.shape)
  widths = [
    np.ptp(cluster_bootstrap.interval(total * 1.0, count, drawn))
    for total in (alone, shared)
  ]
  # sqrt(p (1 - p) / n) with n = 20 persons, and at most sqrt(3) times that of
  # n = 800 independent trials.
  p = shared.mean()
  assert widths[1] == pytest.approx(2 * Z * np.sqrt(p * (1 - p) / 20), rel=0.15)
  p = alone.mean()
  one = 2 * Z * np.sqrt(p * (1 - p) / 800)
  assert 0.9 * one < widths[0] < 1.1 * np.sqrt(3) * one


def test_one_person_and_one_scene_have_no_interval():
  one = np.ones((1, 1))
  drawn = cluster_bootstrap.draw(1, 1)
  assert cluster_bootstrap.interval(one, one, drawn) is None
