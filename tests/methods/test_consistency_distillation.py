"""Consistency distillation, where the path of the teacher is known.

For data N(0, s^2) with the best prediction, every step multiplies x_t by a
number, and so does the whole path. The network of these tests has such a number
for each noise level.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdm.diffusion import distillation, grids, samplers, schedules
from cdm.methods.consistency_distillation import (
  ConsistencyOptions,
  consistency_distillation,
)
from cdm.methods.diffusion import Diffusion, Objective, Sampling

SCHEDULE = schedules.cosine(64)
SIZE, SPREAD = 8, 0.5


def network(steps):
  """-> x_0 = x_t times the number of its level, one of `steps`."""
  levels = jnp.asarray(grids.trailing(SCHEDULE, num_steps=steps)[:-1])

  def apply(variables, x, noise, **given):
    del given
    level = jnp.searchsorted(levels - 1e-3, noise) - 1
    return variables['params'][level][:, None, None, None] * x

  return types.SimpleNamespace(
    apply=apply,
    num_classes=None,
    null_class=False,
    lowres_level=False,
    learned_variance=False,
    condition_on='logsnr',
    parameter_dtype=lambda name: jnp.float32,
  )


def method(segments, steps, *, first=None, updates=100, **objective):
  objective = Objective(**{'prediction': 'x_0', 'target': 'v'} | objective)

  def bound(num_steps):
    sampling = Sampling(
      functools.partial(samplers.ddim, eta=0.0),
      grids.trailing(SCHEDULE, num_steps=num_steps),
      clip='none',
    )
    return Diffusion(network(steps), SCHEDULE, objective, sampling, SIZE)

  options = ConsistencyOptions(
    segments,
    first_teacher_steps=first or steps,
    last_teacher_steps=steps,
    anneal_updates=updates,
  )
  return consistency_distillation(bound(segments), bound(steps), options)


def batch(n, **more):
  x = np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
  given = {'image': jnp.asarray(x), 'label': jnp.zeros(n, jnp.int32)}
  return given | more


def loss_of(made, params, frozen, n=64, **more):
  params, frozen = (jnp.asarray(p, jnp.float32) for p in (params, frozen))
  return made.loss(
    params, batch(n, **more), key=jax.random.key(0), train=True, frozen=frozen
  )


def known(segments, steps):
  """-> (gain of the best denoiser, of the student that lands at the ends).

  At every level but x_0, in float64: the product of the teacher's steps from
  there to the end of the segment, and the x_0 whose one step goes there.
  """
  levels = grids.trailing(SCHEDULE, num_steps=steps)
  with np.errstate(over='ignore'):
    alpha = np.sqrt(1 / (1 + np.exp(-levels)))
    sigma = np.sqrt(1 / (1 + np.exp(levels)))
  gains = SPREAD**2 * alpha / (SPREAD**2 * alpha**2 + sigma**2)
  per = steps // segments
  landing = []
  for i in range(steps):
    end = (i // per + 1) * per
    x = 1.0
    for j in range(i, end):
      x_0 = gains[j] * x
      eps = (x - alpha[j] * x_0) / sigma[j]
      x = alpha[j + 1] * x_0 + sigma[j + 1] * eps
    ratio = sigma[end] / sigma[i]
    landing.append((x - ratio) / (alpha[end] - ratio * alpha[i]))
  return gains[:-1], np.array(landing)


@pytest.mark.parametrize(
  ('segments', 'steps'), [(1, 8), (2, 8), (4, 16), (3, 21)]
)
def test_a_student_that_ends_where_the_path_ends_has_no_loss(segments, steps):
  gains, landing = known(segments, steps)
  made = method(segments, steps)
  value, scalars = loss_of(made, landing, gains)
  np.testing.assert_allclose(value, 0, atol=1e-9)
  other, _ = loss_of(made, gains, gains)
  assert float(other.mean()) > 1e-3
  levels, counts = np.unique(np.asarray(scalars['logsnr']), return_counts=True)
  expected = grids.trailing(SCHEDULE, num_steps=steps)[:-1]
  np.testing.assert_allclose(levels, expected, atol=1e-4)
  assert np.ptp(counts) <= (0 if 64 % steps == 0 else 1)


def test_a_student_of_a_number_per_level_learns_the_ends():
  """From the teacher's own numbers, through its own predictions."""
  made = method(2, 8)
  gains, landing = known(2, 8)
  tx = optax.adam(optax.cosine_decay_schedule(0.05, 600))
  frozen = jnp.asarray(gains, jnp.float32)

  @jax.jit
  def update(params, moments, key):
    def mean(params):
      given = dict(key=key, train=True, frozen=frozen)
      return made.loss(params, batch(16), **given)[0].mean()

    change, moments = tx.update(jax.grad(mean)(params), moments)
    return optax.apply_updates(params, change), moments

  params, moments = frozen, tx.init(frozen)
  for i in range(600):
    params, moments = update(params, moments, jax.random.key(i))
  assert np.abs(landing - gains).max() > 0.1
  np.testing.assert_allclose(params, landing, atol=5e-3)


def test_small_steps_come_near_the_exact_path():
  """x_s / x_t = sqrt of the variances' ratio; the loss falls by 4^2 or so."""
  values = []
  for steps in (16, 32, 64):
    levels = grids.trailing(SCHEDULE, num_steps=steps)[:-1]
    alpha = np.sqrt(1 / (1 + np.exp(-levels)))
    sigma = np.sqrt(1 / (1 + np.exp(levels)))
    variance = SPREAD**2 * alpha**2 + sigma**2
    exact = SPREAD / np.sqrt(variance)  # all the way to x_0
    gains = SPREAD**2 * alpha / variance
    made = method(1, steps, target='x_0')
    # The last step of all goes to the mean, whatever its size.
    value, scalars = loss_of(made, exact, gains, n=256)
    there = np.asarray(scalars['logsnr']) < 1.0
    values.append(float(np.asarray(value)[there].mean()))
  ratios = np.array(values[:-1]) / values[1:]
  assert (ratios > 8).all(), values


def test_the_student_behind_the_step_has_no_gradient():
  """The gradient by the number of a level is that of its own error alone."""
  made = method(1, 4)
  gains, _ = known(1, 4)
  params = jnp.asarray(gains, jnp.float32)

  def error(params, u):
    given = batch(1, u=jnp.asarray([u]))
    return made.loss(
      params, given, key=jax.random.key(0), train=True, frozen=params
    )[0].sum()

  # u in [k / 4, (k + 1) / 4) is the level k from x_0 on: the last but k.
  for k in range(4):
    gradient = np.asarray(jax.grad(error)(params, (k + 0.5) / 4))
    np.testing.assert_array_equal(np.delete(gradient, 3 - k), 0)


def test_the_teacher_takes_more_steps_as_training_goes_on():
  """Even in the logarithm: 4, 8 half-way, 16; evaluation takes the last."""
  made = method(2, 16, first=4, updates=100)
  params = np.ones(16)

  def levels(**more):
    _, scalars = loss_of(made, params, params, n=32, **more)
    return len(np.unique(np.asarray(scalars['logsnr']).round(4)))

  for update, expected in ((0, 4), (50, 8), (100, 16), (1000, 16)):
    assert levels(update=jnp.full(32, update)) == expected
  assert levels() == 16


def test_the_levels_of_a_pair_are_neighbours_on_the_grid():
  """With steps that no level of the schedule is at, and ends that are."""
  pair = distillation.neighbours(
    SCHEDULE,
    jnp.linspace(0, 1, 48, endpoint=False),
    segments=4,
    per_segment=jnp.int32(12),
  )
  grid = grids.trailing(SCHEDULE, num_steps=48)[::-1]  # from x_0 on
  np.testing.assert_allclose(pair.start, grid[1:], rtol=1e-4)
  np.testing.assert_allclose(pair.middle, grid[:-1], rtol=1e-4)
  ends = np.repeat(grids.trailing(SCHEDULE, num_steps=4)[::-1][:-1], 12)
  np.testing.assert_allclose(pair.end, ends, rtol=1e-4)
  np.testing.assert_allclose(pair.middle[::12], pair.end[::12], rtol=1e-5)


@pytest.mark.parametrize(
  ('given', 'told'),
  [
    ({'segments': 0, 'steps': 8}, 'num_steps is 0'),
    ({'segments': 8, 'steps': 4}, 'first_teacher_steps is 4'),
    ({'segments': 1, 'steps': 8, 'first': 65}, r'teacher_steps is 65; .* 64'),
    ({'segments': 1, 'steps': 8, 'updates': -1}, 'anneal_updates is -1'),
    (
      {'segments': 1, 'steps': 8, 'prediction': 'eps', 'target': 'eps'},
      "prediction is 'eps'",
    ),
  ],
)
def test_steps_that_do_not_fit_are_refused(given, told):
  with pytest.raises(ValueError, match=told):
    method(**given)
