"""What a student has to predict, against the paper's formula and closed forms.

For data N(0, s^2) the best prediction of x_0 is linear in x_t, and so is every
step of DDIM; two steps and the prediction that replaces them are products and
sums of a few numbers, which are computed here on their own.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import (
  distillation,
  grids,
  parameterization,
  process,
  samplers,
  schedules,
  weightings,
)
from cdm.diffusion.parameterization import Prediction

SCHEDULE = schedules.cosine(1000)
SPREAD = 0.5  # s


def scales(logsnr):
  """-> alpha, sigma, straight from their definition."""
  return np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))


def gain(logsnr):
  """-> E[x_0 | x_t] / x_t of data N(0, s^2): s^2 a / (s^2 a^2 + sigma^2)."""
  alpha, sigma = scales(logsnr)
  return SPREAD**2 * alpha / (SPREAD**2 * alpha**2 + sigma**2)


def gaussian(x_t, logsnr):
  """The best denoiser of data N(0, s^2)."""
  alpha, sigma = process.alpha_sigma(logsnr)
  k = SPREAD**2 * alpha / (SPREAD**2 * alpha**2 + sigma**2)
  x_0 = process.expand_like(k, x_t) * x_t
  eps = parameterization.eps_from_x_0(x_t, x_0, logsnr=logsnr)
  return Prediction(x_0, eps)


def carried(logsnr_t, logsnr_s):
  """-> x_s / x_t of a step of DDIM with the best denoiser."""
  alpha, sigma = scales(logsnr_t)
  x_0 = gain(logsnr_t)
  eps = (1 - alpha * x_0) / sigma
  if np.isinf(logsnr_s):
    return x_0
  alpha, sigma = scales(logsnr_s)
  return alpha * x_0 + sigma * eps


@pytest.mark.parametrize('num_steps', [1, 2, 8, 500])
def test_the_grids_of_students_are_nested_and_begin_at_the_noisiest(num_steps):
  steps = distillation.halving(SCHEDULE, num_steps=num_steps)
  own = grids.trailing(SCHEDULE, num_steps=num_steps)
  np.testing.assert_array_equal(steps.grid, own)
  assert steps.grid[0] == SCHEDULE.logsnr[-1] and np.isinf(steps.grid[-1])
  teacher = grids.trailing(SCHEDULE, num_steps=2 * num_steps)
  both = np.sort(np.concatenate([steps.grid, steps.middle]))
  np.testing.assert_array_equal(both, teacher)
  np.testing.assert_array_equal(steps.end[:-1], steps.start[1:])


@pytest.mark.parametrize('num_steps', [0, 501])
def test_a_student_has_half_the_steps_of_the_schedule_at_most(num_steps):
  with pytest.raises(ValueError, match=r'num_steps is .* 1 to 500'):
    distillation.halving(SCHEDULE, num_steps=num_steps)


def test_the_target_is_that_of_the_paper():
  """[PD] alg. 2 as it is written, in float64, for any two predictions."""
  rng = np.random.default_rng(0)
  t, m, s = np.sort(rng.uniform(-12, 12, (50, 3)), axis=1).T
  x_t, x_1, x_2 = rng.standard_normal((3, 50))
  (alpha_t, sigma_t), (alpha_m, sigma_m), (alpha_s, sigma_s) = map(
    scales, (t, m, s)
  )
  x_m = alpha_m * x_1 + sigma_m / sigma_t * (x_t - alpha_t * x_1)
  x_s = alpha_s * x_2 + sigma_s / sigma_m * (x_m - alpha_m * x_2)
  ratio = sigma_s / sigma_t
  expected = (x_s - ratio * x_t) / (alpha_s - ratio * alpha_t)
  share = distillation.first_share(t, m, s)
  with jax.enable_x64(True):
    found = distillation.matching_x_0(x_1, x_2, share=share)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_ends_of_the_share():
  """The last step goes to x_0, which the second prediction is."""
  assert distillation.first_share(-3.0, 1.0, np.inf) == 0.0
  assert distillation.first_share(-3.0, 1.0, 1.0) == 1.0


@pytest.mark.parametrize('num_steps', [1, 2, 4, 16])
def test_the_target_of_gaussian_data_is_its_closed_form(num_steps):
  """x~ = x_t (c - sigma_s / sigma_t) / (alpha_s - alpha_t sigma_s / sigma_t).

  With c the product of what both steps of the teacher multiply x_t by.
  """
  steps = distillation.halving(SCHEDULE, num_steps=num_steps)
  x_t = np.random.default_rng(1).standard_normal((num_steps, 2, 2, 1))
  with jax.enable_x64(True):
    found = distillation.progressive_target(
      gaussian, jnp.asarray(x_t), steps, jnp.arange(num_steps)
    )
  for i in range(num_steps):
    t, m, s = steps.start[i], steps.middle[i], steps.end[i]
    if np.isinf(s):
      factor = carried(t, m) * gain(m)
    else:
      (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(t), scales(s)
      ratio = sigma_s / sigma_t
      landed = carried(t, m) * carried(m, s)
      factor = (landed - ratio) / (alpha_s - ratio * alpha_t)
    np.testing.assert_allclose(found[i], factor * x_t[i], rtol=1e-9)


def test_a_student_that_predicts_the_target_ends_where_the_teacher_does():
  """The whole way, by the samplers themselves: 8 steps and their 4."""
  steps = distillation.halving(SCHEDULE, num_steps=4)
  x_T = np.random.default_rng(2).standard_normal((3, 2, 2, 1))

  def student(x_t, logsnr):
    step = jnp.searchsorted(jnp.asarray(steps.start), logsnr)
    x_0 = distillation.progressive_target(gaussian, x_t, steps, step)
    return Prediction(
      x_0, parameterization.eps_from_x_0(x_t, x_0, logsnr=logsnr)
    )

  with jax.enable_x64(True):
    x_T = jnp.asarray(x_T)
    expected = samplers.ddim(
      gaussian, x_T, logsnrs=grids.trailing(SCHEDULE, num_steps=8)
    )
    found = samplers.ddim(student, x_T, logsnrs=steps.grid)
  np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_teacher_has_no_gradient():
  steps = distillation.halving(SCHEDULE, num_steps=2)

  def total(k):
    def teacher(x_t, logsnr):
      return Prediction(k * x_t, x_t - k * x_t)

    x_t = jnp.ones((2, 1, 1, 1))
    return distillation.progressive_target(
      teacher, x_t, steps, jnp.arange(2)
    ).sum()

  assert jax.grad(total)(0.3) == 0.0


@pytest.mark.parametrize('target', ['x_0', 'v'])
@pytest.mark.parametrize('weight', [None, weightings.truncated_snr])
def test_the_loss_is_the_error_of_the_target(target, weight):
  """That of v by v itself, of both the x_0 and the noise that x_t then has."""
  rng = np.random.default_rng(3)
  logsnr = np.array([-8.0, -1.0, 0.5, 6.0])
  x_t, x_0, wanted = rng.standard_normal((3, 4, 2, 2, 3))
  alpha, sigma = (a[:, None, None, None] for a in scales(logsnr))
  of = {
    'x_0': lambda x: x,
    'v': lambda x: alpha * (x_t - alpha * x) / sigma - sigma * x,
  }[target]
  expected = ((of(x_0) - of(wanted)) ** 2).mean((1, 2, 3))
  if weight is not None:
    # max(SNR, 1) on x_0, whatever the target ([PD] sec. 4).
    error = ((x_0 - wanted) ** 2).mean((1, 2, 3))
    expected = np.maximum(np.exp(logsnr), 1) * error
  found = distillation.loss(
    x_0, wanted, logsnr=jnp.asarray(logsnr), target=target, weight=weight
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_error_of_the_noise_is_refused():
  x = jnp.zeros((1, 1, 1, 1))
  with pytest.raises(ValueError, match="target is 'eps'"):
    distillation.loss(x, x, logsnr=jnp.zeros(1), target='eps')
