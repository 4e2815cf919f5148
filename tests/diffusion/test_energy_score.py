"""The energy score, against its expectation for Gaussians in closed form.

For x ~ N(0, I) and draws g = a z of d values, x - g is N(0, (1 + a^2) I) and
g - g' is N(0, 2 a^2 I), so that with beta = 1

  E L = c (sqrt(1 + a^2) - a / sqrt(2)),  c = E |N(0, I)| / sqrt(d)

whose derivative by a is 0 at a = 1, the scale of the data, and nowhere else.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import energy_score

MANY = 200_000


def moment(d, beta):
  """-> E |N(0, I)|^beta / d^(beta / 2) of d values."""
  logs = math.lgamma((d + beta) / 2) - math.lgamma(d / 2)
  return (2 / d) ** (beta / 2) * math.exp(logs)


def expected(a, d, beta):
  return moment(d, beta) * (
    (1 + a**2) ** (beta / 2) - (2 * a**2) ** (beta / 2) / 2
  )


def slope(a, d, beta):
  """-> the derivative of `expected` by a."""
  first = beta * a * (1 + a**2) ** (beta / 2 - 1)
  second = 2 ** (beta / 2) * beta * a ** (beta - 1) / 2
  return moment(d, beta) * (first - second)


def normals(seed, n, side):
  keys = jax.random.split(jax.random.key(seed), 3)
  return [jax.random.normal(key, (n, side, side, 1)) for key in keys]


def scores(a, side=1, n=MANY, **options):
  x, z, other = normals(0, n, side)
  given = {'exponent': 1.0, 'patch_sizes': (0,)} | options
  return energy_score.score(a * z, a * other, x, **given)


def assert_mean(values, wanted):
  """Within four standard errors of the mean of independent values."""
  values = np.asarray(values, np.float64)
  error = values.std() / math.sqrt(len(values))
  assert abs(values.mean() - wanted) < 4 * error


@pytest.mark.parametrize('beta', [0.5, 1.0, 1.7])
@pytest.mark.parametrize('a', [0.3, 1.0, 2.0])
def test_the_mean_score_of_gaussians_is_its_closed_form(a, beta):
  found = scores(a, exponent=beta)
  assert_mean(found.loss, expected(a, 1, beta))
  assert_mean(found.distance, moment(1, beta) * (1 + a**2) ** (beta / 2))
  assert_mean(found.spread, moment(1, beta) * (2 * a**2) ** (beta / 2))


@pytest.mark.parametrize('beta', [0.5, 1.0, 1.7])
def test_the_score_is_least_at_the_distribution_of_the_data(beta):
  """Its gradient is zero at the true scale, and leads there from both sides."""

  def each(a):  # the derivative for every example
    def total(a):
      return scores(a, exponent=beta).loss

    return jax.jvp(total, (a,), (jnp.ones(()),))[1]

  signs = {}
  for a in (0.5, 1.0, 2.0):
    assert slope(1.0, 1, beta) == pytest.approx(0, abs=1e-12)
    gradient = each(jnp.float32(a))
    assert_mean(gradient, slope(a, 1, beta))
    signs[a] = np.asarray(gradient, np.float64).mean()
  assert signs[0.5] < -0.01 and signs[2.0] > 0.01


def test_patches_are_scored_each_and_averaged():
  """Of white noise, every patch has the score of its own dimension."""
  for size, d in ((1, 1), (2, 4), (4, 16), (0, 16)):
    found = scores(1.3, side=4, n=20_000, patch_sizes=(size,))
    assert_mean(found.loss, expected(1.3, d, 1.0))
  both = scores(1.3, side=4, n=100, patch_sizes=(2, 0)).loss
  alone = [scores(1.3, side=4, n=100, patch_sizes=(s,)).loss for s in (2, 0)]
  np.testing.assert_allclose(both, sum(alone) / 2, rtol=1e-5)


def test_a_patch_is_a_square_of_neighbours():
  """One differs by 3 in one of its 4 pixels: sqrt(9 / 4); the others by 0."""
  x = jnp.zeros((1, 4, 4, 1))
  g = x.at[0, 3, 2, 0].set(3.0)
  found = energy_score.score(g, g, x, exponent=1.0, patch_sizes=(2,))
  np.testing.assert_allclose(found.loss, [1.5 / 4], rtol=1e-6)
  assert found.spread == 0.0


def test_equal_images_have_a_gradient():
  x = jnp.ones((1, 2, 2, 1))

  def total(g):
    return energy_score.score(
      g, g, x, exponent=1.0, patch_sizes=(0,)
    ).loss.sum()

  np.testing.assert_array_equal(jax.grad(total)(x), 0 * x)


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ({'exponent': 2.0}, 'exponent is 2.0'),
    ({'exponent': 0.0}, 'exponent is 0.0'),
    ({'patch_sizes': ()}, 'patch_sizes is'),
    ({'patch_sizes': (2, 2)}, 'patch_sizes is'),
    ({'patch_sizes': (3,)}, r'patch_sizes has 3.*divisors of 4'),
    ({'patch_sizes': (-1,)}, 'patch_sizes has -1'),
  ],
)
def test_what_is_no_proper_score_is_refused(options, told):
  with pytest.raises(ValueError, match=told):
    scores(1.0, side=4, n=2, **options)
