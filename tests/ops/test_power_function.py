"""The power-function average, against NVlabs/edm2 and closed forms."""

import numpy as np
import pytest
from support import oracles

from cdm.ops import power_function


@pytest.fixture(scope='module')
def stored():
  description, arrays = oracles.oracle('ema')
  return description['keys'], arrays


def matches(stored, name, mine):
  keys, arrays = stored
  oracles.assert_matches(mine, arrays[name], keys[name]['tol'], name)


def test_exponents_and_widths_are_the_published_codes(stored):
  _, arrays = stored
  gammas = [power_function.exponent(s) for s in arrays['std']]
  matches(stored, 'std_to_exp', gammas)
  matches(stored, 'exp_to_std', power_function.width(arrays['exp']))


def test_each_is_the_inverse_of_the_other():
  for std in (0.001, 0.01, 0.1, 0.2, power_function.MOST_STD):
    gamma = power_function.exponent(std)
    assert power_function.width(gamma) == pytest.approx(std, rel=1e-7)
  assert power_function.exponent(12**-0.5) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('std', [0.0, -0.1, 0.3, float('nan')])
def test_a_width_that_no_average_has_is_refused(std):
  with pytest.raises(ValueError, match='above 0 and at most 0.2887'):
    power_function.exponent(std)


def test_the_shares_of_the_old_average_are_the_published_codes(stored):
  _, arrays = stored
  gammas = np.array([power_function.exponent(s) for s in arrays['std']])
  betas = power_function.beta(
    arrays['t_next'][None], gammas[:, None], delta=128
  )
  matches(stored, 'beta', betas)


def test_a_width_is_the_deviation_of_the_response():
  """By the sums of the discrete averages of 1, t and t^2 over 4,000 steps."""
  steps = 4000
  for std in (0.03, 0.1, 0.25):
    gamma = power_function.exponent(std)
    mean = square = 0.0
    for t in range(1, steps + 1):
      share = power_function.beta(t, gamma)
      mean = share * mean + (1 - share) * t
      square = share * square + (1 - share) * t**2
    deviation = np.sqrt(square - mean**2) / steps
    assert deviation == pytest.approx(std, rel=2e-3)


def test_inner_products_are_the_published_codes_and_the_integrals(stored):
  _, arrays = stored
  a, a_std, b, b_std = arrays['corr_in']
  a_gamma = np.array([power_function.exponent(s) for s in a_std])
  b_gamma = np.array([power_function.exponent(s) for s in b_std])
  mine = power_function.correlation(a, a_gamma, b, b_gamma)
  matches(stored, 'corr', mine)
  for i in range(len(a)):
    tau = (np.arange(200_000) + 0.5) / 200_000 * min(a[i], b[i])
    product = (a_gamma[i] + 1) * (tau / a[i]) ** a_gamma[i] / a[i]
    product *= (b_gamma[i] + 1) * (tau / b[i]) ** b_gamma[i] / b[i]
    integral = product.mean() * min(a[i], b[i])
    assert mine[i] == pytest.approx(integral, rel=1e-6)


def test_inner_products_of_long_runs_do_not_overflow():
  gamma = power_function.exponent(0.005)
  product = power_function.correlation(2.0**31, gamma, 2.0**30, gamma)
  assert 0.0 <= product < 1e-50
  assert power_function.correlation(2.0**31, gamma, 2.0**31, gamma) > 0


def test_coefficients_are_the_published_codes(stored):
  keys, arrays = stored
  times, stds = arrays['posthoc/in_ofs'], arrays['posthoc/in_std']
  fits = [
    power_function.fit(times, stds, time=t, std=s)
    for t, s in zip(
      arrays['posthoc/out_ofs'], arrays['posthoc/out_std'], strict=True
    )
  ]
  mine = np.stack([fit.coefficients for fit in fits], axis=1)
  matches(stored, 'posthoc/coefficients', mine)
  np.testing.assert_allclose(mine.sum(axis=0), 1, rtol=1e-12)
  for fit in fits:
    matches(stored, 'posthoc/condition_number', fit.condition)


def test_reconstructions_are_the_published_codes(stored):
  keys, arrays = stored
  description, _ = oracles.oracle('ema')
  settings = description['settings']
  seen = arrays['sim/snapshot_nimg'].astype(float)
  tracked = len(settings['track'])
  times, stds = np.repeat(seen, tracked), settings['track'] * len(seen)
  order = [list(arrays['sim/stds']).index(s) for s in settings['track']]
  kept = arrays['sim/power_ema'][:, order].reshape(len(times), -1)
  mine = [
    power_function.fit(times, stds, time=seen[-1], std=s).coefficients @ kept
    for s in settings['targets']
  ]
  matches(stored, 'sim/posthoc_reconstruction', mine)


def test_the_averages_of_a_run_are_the_published_codes(stored):
  _, arrays = stored
  params, batch = arrays['sim/params'], 128
  gammas = np.array([power_function.exponent(s) for s in arrays['sim/stds']])
  average, averages = np.zeros((len(gammas), params.shape[1])), []
  for step, value in enumerate(params):
    seen = batch * (step + 1)
    share = power_function.beta(seen, gammas, delta=batch)[:, None]
    average = share * average + (1 - share) * value
    if seen in arrays['sim/snapshot_nimg']:
      averages.append(average)
  matches(stored, 'sim/power_ema', averages)


def test_a_width_that_was_kept_is_that_average_itself():
  times, stds = np.repeat(np.arange(1, 65), 2), [0.05, 0.1] * 64
  for n, std in enumerate((0.05, 0.1)):
    fit = power_function.fit(times, stds, time=64, std=std)
    assert fit.residual < 1e-6
    assert fit.gain == pytest.approx(1)
    expected = np.zeros(128)
    expected[126 + n] = 1
    np.testing.assert_allclose(fit.coefficients, expected, atol=1e-8)


def test_the_residual_is_the_distance_of_the_responses():
  times, stds = np.repeat(np.arange(1.0, 9.0), 2), [0.05, 0.1] * 8
  tau = (np.arange(400_000) + 0.5) / 50_000  # to 8

  def response(t, std):
    gamma = power_function.exponent(std)
    value = (gamma + 1) * (tau / t) ** gamma / t
    return np.where(tau < t, value, 0.0)

  for std, least in ((0.03, 0.09), (0.07, 0.012), (0.25, 0.17)):
    fit = power_function.fit(times, stds, time=8, std=std)
    wanted = response(8, std)
    parts = [response(t, s) for t, s in zip(times, stds, strict=True)]
    lacking = np.linalg.norm(fit.coefficients @ np.array(parts) - wanted)
    share = lacking / np.linalg.norm(wanted)
    assert fit.residual == pytest.approx(share, rel=1e-3)
    assert fit.residual > least


def test_what_moves_evenly_has_the_average_of_the_closed_form():
  """theta_t = t has the average (gamma + 1) / (gamma + 2) t, nearly.

  Exactly: the n-th update's share is that of the integral from t - 1 to t.
  """
  gamma, average = power_function.exponent(0.1), 0.0
  for t in range(1, 1001):
    share = power_function.beta(t, gamma)
    average = share * average + (1 - share) * t
  edges = (np.arange(1001) / 1000) ** (gamma + 1)
  exact = np.diff(edges) @ np.arange(1, 1001)
  assert average == pytest.approx(exact, rel=1e-12)
  assert average == pytest.approx((gamma + 1) / (gamma + 2) * 1000, rel=1e-3)
