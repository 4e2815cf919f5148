"""The decays of the learning rate, against their closed forms."""

import numpy as np
import pytest

from cdm.training import learning_rate, optimizer


def rates(steps, num_steps=None, **options):
  given = optimizer.AdamOptions(learning_rate=2.0, **options)
  rate = learning_rate.make_learning_rate(given, num_steps)
  return np.asarray(rate(np.asarray(steps)))


def test_a_linear_decay_reaches_zero_at_the_end_of_the_run():
  found = rates(
    [0, 9, 10, 35, 60, 109, 110, 500],
    num_steps=110,
    warmup_steps=10,
    decay='linear',
  )
  expected = [0.2, 2, 2, 1.5, 1, 0.02, 0, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ('given', 'start'),
  [
    (dict(warmup_steps=100), 100),
    (dict(warmup_steps=10, decay_from=100), 100),
    (dict(decay_from=64), 64),
  ],
)
def test_the_inverse_square_root_halves_at_four_times_its_start(given, start):
  """Karras et al. (arXiv 2312.02696) eq. 67: rate / sqrt(max(k / start, 1))."""
  steps = np.array([start, 4 * start, 9 * start, 100 * start])
  found = rates(steps, decay='inverse_sqrt', **given)
  np.testing.assert_allclose(found, [2, 1, 2 / 3, 0.2], rtol=1e-6)
  before = rates(start - 1, decay='inverse_sqrt', **given)
  np.testing.assert_allclose(before, 2, rtol=1e-6)


def test_a_cosine_is_half_at_half_of_what_follows_the_warm_up():
  found = rates(
    [0, 9, 10, 35, 60, 110, 500],
    num_steps=110,
    warmup_steps=10,
    decay='cosine',
  )
  expected = [0.2, 2, 2, 1 + np.sqrt(0.5), 1, 0, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_rate_falls_by_its_factor_at_each_step_that_is_named():
  found = rates(
    [0, 3, 4, 19, 20, 29, 30, 99],
    warmup_steps=4,
    decay='step',
    decay_at=(20, 30),
    decay_factor=0.25,
  )
  expected = [0.5, 2, 2, 2, 0.5, 0.5, 0.125, 0.125]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_a_decay_the_rate_stays():
  np.testing.assert_allclose(rates([0, 1, 10**6]), 2, rtol=1e-6)
  np.testing.assert_allclose(rates([0, 1], warmup_steps=1), 2, rtol=1e-6)


@pytest.mark.parametrize(
  ('fields', 'num_steps'),
  [
    (dict(decay='linear', warmup_steps=9), 10),
    (dict(decay='step', decay_at=(1,)), None),
    (dict(decay='inverse_sqrt', decay_from=1), None),
    (dict(decay='inverse_sqrt', warmup_steps=1), None),
  ],
)
def test_the_least_of_every_number_is_taken(fields, num_steps):
  assert np.isfinite(rates(0, num_steps, **fields))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(learning_rate=0.0), 'learning_rate is 0'),
    (dict(warmup_steps=-1), 'warmup_steps is -1'),
    (dict(decay='fast'), "decay is 'fast'; known are"),
    (dict(decay='cosine', warmup_steps=10), 'larger num_steps than 10'),
    (dict(decay='step'), r'decay_at is \(\) with'),
    (dict(decay_at=(3,)), r"decay_at is \(3,\) with decay='constant'"),
    (dict(decay='step', decay_at=(0, 3)), r'decay_at is \(0, 3\)'),
    (dict(decay='step', decay_at=(3, 3)), r'decay_at is \(3, 3\)'),
    (dict(decay_factor=0.0), r'decay_factor is 0\.0'),
    (dict(decay_factor=1.0), r'decay_factor is 1\.0'),
  ],
)
def test_a_number_out_of_its_range_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    given = optimizer.AdamOptions(**{'learning_rate': 2.0, **fields})
    learning_rate.make_learning_rate(given, 10)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(decay='linear'), "'linear' .* needs a larger num_steps than None"),
    (dict(decay='inverse_sqrt'), 'decay_from is 0 .* no warm-up'),
    (dict(decay_from=5), "decay_from is 5 with decay='constant'"),
    (dict(decay='inverse_sqrt', decay_from=-1), 'decay_from is -1'),
  ],
)
def test_a_decay_that_does_not_fit_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    rates(0, **fields)
