"""A student and its teacher, with networks of a few numbers.

The network of these tests multiplies its input by a number of its own for each
noise level, so that what a student has to learn is known.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdm.diffusion import (
  grids,
  preconditioning,
  samplers,
  schedules,
  weightings,
)
from cdm.methods.diffusion import Diffusion, Objective, Sampling
from cdm.methods.lowres_conditioning import Lowres
from cdm.methods.progressive_distillation import progressive_distillation

SCHEDULE = schedules.cosine(64)
N, SIZE = 4, 8
SPREAD = 0.5
LEVELS = grids.trailing(SCHEDULE, num_steps=2 * N)[:-1]  # of the teacher


def network(output, **fields):
  """-> what stands for a network: output(params, x, logsnr, label)."""
  seen = []

  def apply(variables, x, noise, *, label=None, **given):
    seen.append(given)
    return output(variables['params'], x, noise, label)

  options = {
    'num_classes': None,
    'null_class': fields.get('num_classes') is not None,
    'lowres_level': False,
    'learned_variance': False,
    'condition_on': 'logsnr',
    'parameter_dtype': lambda name: jnp.float32,
  }
  return types.SimpleNamespace(apply=apply, seen=seen, **options | fields)


def scaled(params, x, logsnr, label):
  """x_0 = x_t times the number of its level."""
  del label
  level = jnp.searchsorted(jnp.asarray(LEVELS, jnp.float32) - 1e-3, logsnr) - 1
  return params[level][:, None, None, None] * x


def method(net, *, steps=N, teacher=None, lowres=None, **objective):
  """-> the method; `teacher` has fields of its `Sampling`."""
  objective = Objective(**{'prediction': 'x_0'} | objective)

  def bound(num_steps, **fields):
    sampling = Sampling(
      functools.partial(samplers.ddim, eta=0.0),
      grids.trailing(SCHEDULE, num_steps=num_steps),
      **fields,
    )
    return Diffusion(net, SCHEDULE, objective, sampling, SIZE, lowres)

  own = bound(steps, clip='none')
  other = bound(2 * N, **{'clip': 'none'} | (teacher or {}))
  return progressive_distillation(own, other, N)


def batch(n=4 * N):
  x = np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
  return {'image': jnp.asarray(x), 'label': jnp.arange(n) % 3}


def loss_of(made, params, frozen, given=None, train=True):
  return made.loss(
    params,
    batch() if given is None else given,
    key=jax.random.key(0),
    train=train,
    frozen=frozen,
  )


def factors():
  """-> (best gain at every level of the teacher, x~ / x_t at the student's).

  Of data N(0, s^2), by the formula of the paper, in float64.
  """
  alpha, sigma = (
    np.append(x, last)
    for x, last in zip(
      (np.sqrt(1 / (1 + np.exp(-LEVELS))), np.sqrt(1 / (1 + np.exp(LEVELS)))),
      (1.0, 0.0),
      strict=True,
    )
  )
  gains = SPREAD**2 * alpha / (SPREAD**2 * alpha**2 + sigma**2)

  def step(x, i):
    x_0 = gains[i] * x
    return alpha[i + 1] * x_0 + sigma[i + 1] * (x - alpha[i] * x_0) / sigma[i]

  wanted = []
  for i in range(0, 2 * N, 2):
    ratio = sigma[i + 2] / sigma[i]
    landed = step(step(1.0, i), i + 1)
    wanted.append((landed - ratio) / (alpha[i + 2] - ratio * alpha[i]))
  return gains[:-1], np.array(wanted)


@pytest.mark.parametrize('target', ['x_0', 'v'])
def test_a_student_of_a_number_per_level_learns_the_known_ones(target):
  made = method(
    network(scaled), target=target, weighting=weightings.truncated_snr
  )
  gains, wanted = factors()
  tx = optax.adam(optax.cosine_decay_schedule(0.1, 300))
  teacher = jnp.asarray(gains, jnp.float32)

  @jax.jit
  def update(params, moments, key):
    def mean(params):
      given = dict(key=key, train=True, frozen=teacher)
      return made.loss(params, batch(), **given)[0].mean()

    value, gradient = jax.value_and_grad(mean)(params)
    change, moments = tx.update(gradient, moments)
    return optax.apply_updates(params, change), moments, value

  params = teacher  # a student begins as its teacher
  moments = tx.init(params)
  losses_of_steps = []
  for i in range(300):
    params, moments, value = update(params, moments, jax.random.key(i))
    losses_of_steps.append(float(value))
  np.testing.assert_allclose(params[::2], wanted, atol=2e-3)
  # The levels between are the teacher's alone.
  np.testing.assert_array_equal(params[1::2], teacher[1::2])
  assert np.abs(wanted - gains[::2]).max() > 0.05
  assert losses_of_steps[-1] < 1e-3 * losses_of_steps[0]


def test_a_student_with_the_map_of_two_steps_has_no_loss():
  made = method(network(scaled), weighting=weightings.truncated_snr)
  gains, wanted = factors()
  params = jnp.asarray(gains).at[::2].set(wanted)
  value, scalars = loss_of(made, params, jnp.asarray(gains, jnp.float32))
  np.testing.assert_allclose(value, 0, atol=1e-10)
  # Its levels, each as often as the others.
  found, counts = np.unique(np.asarray(scalars['logsnr']), return_counts=True)
  np.testing.assert_allclose(found, LEVELS[::2], rtol=1e-5)
  assert (counts == 4).all()


def constant(params, x, logsnr, label):
  """x_0 is a number of the class of the image."""
  del logsnr
  return params[label][:, None, None, None] + 0 * x


@pytest.mark.parametrize(
  ('teacher', 'expected'),
  [
    ({}, [0.1, 0.2, 0.7]),
    # (1 + w) eps_c - w eps_u, so the same of x_0.
    ({'guidance_weight': 2.0}, [1.1, 1.4, 2.9]),
    ({'guidance_weight': 2.0, 'clip': 'static'}, [1.0, 1.0, 1.0]),
  ],
)
def test_a_teacher_steps_as_it_draws_guided_and_clipped(teacher, expected):
  """And its student learns that: it has no loss where it predicts it alone."""
  net = network(constant, num_classes=3)
  made = method(net, teacher=teacher, label_dropout=0.1)
  frozen = jnp.array([0.1, 0.2, 0.7, -0.4])  # the last one without a label
  params = jnp.array([*expected, 5.0])
  value, _ = loss_of(made, params, frozen, train=False)
  np.testing.assert_allclose(value, 0, atol=1e-10)
  value, _ = loss_of(made, params + 0.5, frozen, train=False)
  np.testing.assert_allclose(value, 0.25, rtol=1e-4)


def test_teacher_and_student_are_given_the_same_conditions():
  net = network(lambda p, x, *_: p * x, lowres_level=True)
  lowres = Lowres(size=4, augment='noise')
  made = method(net, lowres=lowres, residual_scale=0.2)
  loss_of(made, jnp.float32(1), jnp.float32(1))
  first, *others = net.seen
  assert len(others) == 2  # two steps of the teacher, one of the student
  for other in others:
    for name in ('lowres', 'lowres_level'):
      np.testing.assert_array_equal(other[name], first[name])
  assert np.ptp(first['lowres_level']) > 0.5


def test_a_network_that_predicts_noise_is_no_student():
  with pytest.raises(ValueError, match='at the first step of few'):
    method(network(scaled), prediction='eps')


def test_a_student_is_drawn_in_the_steps_that_it_learns():
  made = method(network(scaled), steps=2 * N)
  with pytest.raises(ValueError, match=r'than the 4 .*grid\.num_steps=4'):
    loss_of(made, jnp.ones(2 * N), jnp.ones(2 * N))


@pytest.mark.parametrize('target', ['x_0', 'v'])
def test_a_preconditioned_network_is_scored_on_its_image(target):
  """F = f x / r is x_0 = (alpha s^2 + sigma s f) / r^2 x, [EDM] tab. 1."""
  own, other = 0.3, -0.7

  def preconditioned(factor, x, logsnr, label):
    del logsnr, label
    return factor * x

  def image(factor, x, logsnr, label):
    del label
    alpha2 = jax.nn.sigmoid(logsnr)
    alpha, sigma = jnp.sqrt(alpha2), jnp.sqrt(1 - alpha2)
    gain = alpha * SPREAD**2 + sigma * SPREAD * factor
    gain /= 1 - alpha2 + alpha2 * SPREAD**2
    return gain[:, None, None, None] * x

  expected, _ = loss_of(method(network(image), target=target), own, other)
  edm = preconditioning.Edm(SPREAD)
  made = method(network(preconditioned), prediction=edm, target=target)
  found, _ = loss_of(made, own, other)
  assert expected.min() > 0
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  with pytest.raises(ValueError, match='target is None.*target=v, or x_0'):
    method(network(preconditioned), prediction=edm)
