"""A network that is scored by a scoring rule, with networks of known draws."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import grids, preconditioning, samplers, schedules
from cdm.methods.diffusion import X_T, Diffusion, Objective, Sampling
from cdm.methods.lowres_conditioning import Lowres
from cdm.methods.scoring_rule import ScoringOptions, scoring_rule
from cdm.ops.keys import image_keys, normals

SCHEDULE = schedules.cosine(64)
SIZE = 8


def network(output, **fields):
  """-> what stands for a network: output(params, x)."""
  seen = []

  def apply(variables, x, noise, **given):
    seen.append({'x': x, 'noise': noise, **given})
    return output(variables['params'], x)

  options = {
    'num_classes': None,
    'null_class': False,
    'lowres_level': False,
    'learned_variance': False,
    'condition_on': 'logsnr',
    'parameter_dtype': lambda name: jnp.float32,
  }
  return types.SimpleNamespace(apply=apply, seen=seen, **options | fields)


def method(net, *, lowres=None, steps=1, sizes=(0,), **objective):
  sampling = Sampling(
    functools.partial(samplers.ddim, eta=0.0),
    grids.trailing(SCHEDULE, num_steps=steps),
    clip='none',
  )
  objective = Objective(**{'prediction': 'x_0'} | objective)
  drawn = Diffusion(net, SCHEDULE, objective, sampling, SIZE, lowres)
  return scoring_rule(drawn, ScoringOptions(1.0, sizes))


def batch(n=32):
  x = np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
  return {'image': jnp.asarray(x), 'label': jnp.zeros(n, jnp.int32)}


def loss_of(made, params=None, given=None):
  given = batch() if given is None else given
  return made.loss(params, given, key=jax.random.key(0), train=True)


def test_two_draws_of_noise_alone_are_made_at_the_noisiest_level():
  net = network(lambda _, x: x)
  _, scalars = loss_of(method(net))
  first, second = net.seen
  for draw in (first, second):
    np.testing.assert_allclose(draw['noise'], SCHEDULE.logsnr[-1], rtol=1e-6)
    assert float(draw['x'].mean()) == pytest.approx(0, abs=0.05)
    assert float(draw['x'].std()) == pytest.approx(1, abs=0.05)
  # Independent: no correlation, between draws and between examples.
  flat = np.concatenate([np.asarray(d['x']).reshape(32, -1) for d in net.seen])
  apart = np.corrcoef(flat) - np.eye(64)
  assert np.abs(apart).max() < 0.4
  # The root mean square of a difference of two such draws.
  np.testing.assert_allclose(scalars['spread'], np.sqrt(2), rtol=0.2)


def test_draws_that_are_all_alike_are_scored_by_their_distance():
  loss, scalars = loss_of(method(network(lambda p, x: p + 0 * x)), 0.25)
  x = np.asarray(batch()['image'], float) / 127.5 - 1
  wanted = np.sqrt(((x - 0.25) ** 2).mean((1, 2, 3)))
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)
  np.testing.assert_array_equal(scalars['spread'], 0)


def test_the_target_may_be_a_residual():
  """A network that draws no difference to the enlarged image."""
  lowres = Lowres(size=4, upsample='nearest')
  net = network(lambda _, x: 0 * x)
  loss, _ = loss_of(method(net, lowres=lowres, residual_scale=0.2))
  x = np.asarray(batch()['image'], float) / 127.5 - 1
  residual = (x - np.asarray(net.seen[0]['lowres'])) / 0.2
  wanted = np.sqrt((residual**2).mean((1, 2, 3)))
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_one_evaluation_draws_what_was_scored():
  net = network(lambda p, x: p * x)
  made = method(net)
  keys = image_keys(0, np.arange(4))
  x = made.sample(jnp.float32(0.7), keys=keys)
  own = jax.vmap(lambda key: jax.random.fold_in(key, X_T))(keys)
  noise = normals(own, (SIZE, SIZE, 3))
  np.testing.assert_allclose(x, 0.7 * noise, rtol=1e-5)
  assert len(net.seen) == 1


def test_a_network_learns_the_scale_of_its_data():
  """Draws a z of images of white noise: a becomes their standard deviation."""
  made = method(network(lambda p, x: p * x), sizes=(1, 0))

  @jax.jit
  def slope(a):
    def mean(a):
      return loss_of(made, a, batch(64))[0].mean()

    return jax.grad(mean)(a)

  # Uniform grey levels: 1 / sqrt(3). Of one value, their law is not normal.
  assert slope(0.4) < -0.02 < 0.02 < slope(0.8)


def test_settings_that_contradict_each_other_are_refused():
  with pytest.raises(ValueError, match="prediction is 'eps'"):
    method(network(lambda _, x: x), prediction='eps')
  with pytest.raises(ValueError, match='patch_sizes has 3'):
    method(network(lambda _, x: x), sizes=(3,))
  with pytest.raises(ValueError, match=r'than the 1 .*grid\.num_steps=1'):
    loss_of(method(network(lambda _, x: x), steps=2))


def test_a_preconditioned_network_is_scored_on_its_image():
  """Where x_t is noise alone, the image is s F, [EDM] tab. 1."""
  spread = 0.5
  plain = method(network(lambda params, x: spread * params * x))
  edm = method(
    network(lambda params, x: params * x),
    prediction=preconditioning.Edm(spread),
  )
  expected, found = (loss_of(made, 0.7)[0] for made in (plain, edm))
  np.testing.assert_allclose(found, expected, rtol=1e-2)
