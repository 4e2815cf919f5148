"""Training objectives of the diffusion method, on networks that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods.test_diffusion import SIZE, batch, network, spied

from cdm.diffusion import grids, noise_levels, samplers, schedules, weightings
from cdm.diffusion.cosine_logsnr import shifted_cosine
from cdm.diffusion.noise_levels import LogNormal
from cdm.diffusion.preconditioning import Edm
from cdm.methods.diffusion import Objective, Sampling, diffusion
from cdm.models.loss_uncertainty import LossUncertainty
from cdm.ops import pixels

WIDE = shifted_cosine(1000, image_size=SIZE, noise_size=SIZE)


def method(net=None, schedule=WIDE, size=SIZE, **fields):
  sampling = Sampling(
    run=samplers.ddim,
    grid=grids.respaced(schedule, spacing='4'),
    clip='none',
  )
  return diffusion(
    net or spied()[0], schedule, Objective(**fields), sampling, image_size=size
  )


def loss_of(t, params=None, given=None, train=True):
  given = batch() if given is None else given
  return t.loss(params or {}, given, key=jax.random.key(0), train=train)


def test_the_network_of_edm_is_given_images_of_unit_variance():
  """c_in x, for data whose root mean square is sigma_data."""
  seen = {}

  def output(x, _):
    seen['x'] = x
    return 0 * x

  std = float(jnp.sqrt(jnp.square(pixels.to_float(batch()['image'])).mean()))
  loss, scalars = loss_of(
    method(spied(output)[0], prediction=Edm(std), levels=LogNormal())
  )
  rms = np.sqrt(np.square(seen['x']).mean((1, 2, 3)))
  np.testing.assert_allclose(rms, 1.0, atol=0.15)
  assert float(rms.mean()) == pytest.approx(1.0, rel=0.01)
  # What it should have said has unit variance too, so zero is off by 1.
  assert float(loss.mean()) == pytest.approx(1.0, rel=0.02)
  log_s = np.sort(-np.asarray(scalars['logsnr']) / 2)
  middle = (np.arange(64) + 0.5) / 64
  expected = -1.2 + 1.2 * jax.scipy.special.ndtri(jnp.asarray(middle))
  np.testing.assert_allclose(log_s[4:-4], expected[4:-4], atol=0.2)


def test_edms_weight_on_the_image_is_no_weight_on_the_output():
  plain, _ = loss_of(method(prediction=Edm(0.5)))
  weighted, _ = loss_of(
    method(prediction=Edm(0.5), target='x_0', weighting=weightings.edm)
  )
  np.testing.assert_allclose(weighted, plain, rtol=1e-4)


def test_levels_may_lie_between_the_steps_of_the_schedule():
  schedule = shifted_cosine(8, image_size=SIZE, noise_size=SIZE)
  _, scalars = loss_of(method(schedule=schedule, levels='continuous'))
  assert len(np.unique(scalars['logsnr'])) == 64
  _, scalars = loss_of(method(schedule=schedule))
  assert len(np.unique(scalars['logsnr'])) == 8


def test_a_network_of_steps_is_told_levels_between_them():
  """t + 1 = T time, as the table has its first entry at 1 / T."""
  net, seen = spied(condition_on='t')
  _, scalars = loss_of(method(net, levels='continuous'))
  time = np.interp(
    -np.asarray(scalars['logsnr']), -WIDE.logsnr, np.arange(1, 1001) / 1000
  )
  np.testing.assert_allclose(seen['noise'] + 1, 1000 * time, atol=0.01)


def test_a_multiscale_loss_of_white_noise_is_known():
  """A zero network that predicts eps: var / k^2 at every size."""
  rng = np.random.default_rng(0)
  given = {
    'image': jnp.asarray(rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)),
    'label': jnp.zeros(8, jnp.int32),
  }
  loss, _ = loss_of(method(size=64, loss='multiscale'), given=given)
  assert float(loss.mean()) == pytest.approx(1 / 64 + 1 / 4 / 32, rel=0.02)


def test_the_simple_part_of_the_hybrid_loss_can_be_weighted():
  net, _ = spied(lambda x, _: jnp.tile(0 * x, 2), learned_variance=True)
  schedule = schedules.cosine(100)
  fields = dict(net=net, schedule=schedule, loss='hybrid')
  plain, scalars = loss_of(method(**fields))
  weighted, _ = loss_of(method(**fields, weighting=weightings.min_snr))
  bound = plain - loss_of(method(**fields, vb_weight=0.0))[0]
  weight = weightings.min_snr(scalars['logsnr'], 'eps')
  np.testing.assert_allclose(
    weighted, weight * (plain - bound) + bound, rtol=1e-4, atol=1e-5
  )
  assert float(jnp.abs(weighted - plain).max()) > 0.1


@functools.cache
def learned():
  return method(
    network(condition_on='logsnr'),
    prediction=Edm(0.5),
    target='x_0',
    levels=LogNormal(),
    weighting=weightings.edm,
    uncertainty=LossUncertainty(16),
  )


def test_a_learned_weight_is_a_parameter_that_starts_at_nothing():
  t = learned()
  params = jax.jit(t.init)(jax.random.key(0))
  assert params['loss_uncertainty']['kernel'].shape == (16,)
  plain, scalars = jax.jit(functools.partial(loss_of, t, train=False))(params)
  loss, more = jax.jit(functools.partial(loss_of, t))(params)
  np.testing.assert_array_equal(scalars['uncertainty'], np.zeros(64))
  np.testing.assert_allclose(loss, more['weighted_loss'], rtol=1e-6)
  np.testing.assert_allclose(plain, more['weighted_loss'], rtol=1e-5)
  moved = params | {'loss_uncertainty': {'kernel': jnp.full(16, 1.0)}}
  loss, more = jax.jit(functools.partial(loss_of, t))(moved)
  u = np.asarray(more['uncertainty'])
  assert np.abs(u).max() > 0.1
  np.testing.assert_allclose(
    loss, more['weighted_loss'] / np.exp(u) + u, rtol=1e-5, atol=1e-6
  )
  # Held-out losses do not depend on it.
  np.testing.assert_array_equal(
    jax.jit(functools.partial(loss_of, t, train=False))(moved)[0], plain
  )


def test_images_do_not_depend_on_a_learned_weight():
  t = learned()
  params = jax.jit(t.init)(jax.random.key(0))
  # The last layer is zero at first and would hide what lies before it.
  params = jax.tree.map(lambda p: p + 0.1, params)
  other = params | {'loss_uncertainty': {'kernel': jnp.full(16, 9.0)}}
  keys = jax.random.split(jax.random.key(1), 2)
  draw = jax.jit(lambda p: t.sample(p, keys=keys))
  np.testing.assert_array_equal(draw(params), draw(other))


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    (dict(loss='multiscale'), 'an image of 8 is not 32 times'),
    (dict(size=64, loss='multiscale', norm=1), "'multiscale' is of squared"),
    (
      dict(norm=1, uncertainty=LossUncertainty(8)),
      'learns the variance of squared errors',
    ),
    (
      dict(
        net=spied(learned_variance=True)[0],
        loss='hybrid',
        uncertainty=LossUncertainty(8),
      ),
      'no fixed proportion',
    ),
    (
      dict(
        net=spied(learned_variance=True)[0], loss='hybrid', levels=LogNormal()
      ),
      'a discrete chain',
    ),
    (
      dict(
        net=spied(learned_variance=True)[0],
        loss='hybrid',
        levels='continuous',
      ),
      'a discrete chain',
    ),
    (dict(levels=LogNormal(-30.0, 1.0)), 'lie beyond those of the schedule'),
    (
      dict(prediction='eps', target='x_0', weighting=weightings.edm),
      'weigh the error of eps up to',
    ),
    (
      dict(
        prediction='v',
        target='v',
        weighting=functools.partial(weightings.edm, sigma_data=0.01),
      ),
      r'weigh the error of v up to 1e\+04 times',
    ),
    (
      dict(
        prediction='eps',
        weighting=functools.partial(
          weightings.sigmoid_integral,
          log_spread=noise_levels.log_spread('continuous', WIDE),
        ),
      ),
      'weigh the error of eps up to',
    ),
    (
      dict(weighting=functools.partial(weightings.p2, k=1e-6)),
      r'weigh the error of eps up to',
    ),
  ],
)
def test_objectives_that_contradict_themselves_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    method(**fields)
