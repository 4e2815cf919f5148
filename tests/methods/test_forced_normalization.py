"""Training with normalised weights, against EDM2's own program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import edm2_weights
from support.oracles import oracle

from cdm.diffusion import losses, samplers, schedules
from cdm.diffusion.preconditioning import Edm
from cdm.methods import diffusion_score, forced_normalization
from cdm.methods.diffusion import Diffusion
from cdm.methods.diffusion_options import Objective, Sampling
from cdm.models import edm2_unet, loss_uncertainty
from cdm.models import magnitude_preserving as mp
from cdm.models.loss_uncertainty import LossUncertainty
from cdm.models.unet import UNet
from cdm.training import optimizer

NOTES, STORED = oracle('edm2_unet')
SETTINGS = NOTES['settings']
HEAD = SETTINGS['models']['cond']['kw']['channels_per_head']
# float32 of ours against float64 of theirs, over the largest value.
ATOL = 1e-5


def near(mine, stored, name, atol=ATOL):
  stored = np.asarray(stored)
  atol = atol * max(np.abs(stored).max(), 1e-3)
  np.testing.assert_allclose(mine, stored, rtol=0, atol=atol, err_msg=name)


def last(key):
  """-> images of theirs, [..., H, W, C] float32."""
  return np.moveaxis(np.asarray(STORED[key], np.float32), -3, -1)


def model(monkeypatch):
  """-> (Diffusion of the oracle's model `cond`, its parameters)."""
  net = edm2_weights.network(SETTINGS['models']['cond']['kw'])
  params, constants = edm2_weights.parameters(NOTES['weights']['cond'], HEAD)
  monkeypatch.setattr(
    edm2_unet, 'fourier_constants', lambda _: constants['emb']
  )
  monkeypatch.setattr(
    loss_uncertainty, 'fourier_constants', lambda _: constants['logvar']
  )
  objective = Objective(
    prediction=Edm(0.5),
    levels='continuous',
    uncertainty=LossUncertainty(128, is_normalized=True),
    label_dropout=0.1,  # of a null class, which is not drawn here
  )
  sampling = Sampling(samplers.ddim, np.asarray([-10.0, np.inf]))
  schedule = schedules.linear(num_steps=4, beta_min=0.1, beta_max=0.9)
  objective = objective._replace(levels='discrete')
  return Diffusion(net, schedule, objective, sampling, 16), params


def names_of(params, names):
  return {name: edm2_weights.at(params, name) for name in names}


def test_stored_weights_are_normalised_as_edm2s(monkeypatch):
  bound, params = model(monkeypatch)
  names = SETTINGS['forced']['weight_names']

  def magnitudes(params):
    found = names_of(params, names).values()
    return [np.sqrt(np.square(np.asarray(w, float)).mean()) for w in found]

  near(magnitudes(params), STORED['forced/weight_rms_before'], 'before')
  project = forced_normalization.projection(bound.net, bound.objective)
  once = project(params)
  twice = project(once)
  # Their forward pass leaves out the weight of the loss.
  theirs = STORED['forced/weight_rms_after1']
  near(magnitudes(once)[:-1], theirs[:-1], 'after')
  near(magnitudes(twice)[:-1], STORED['forced/weight_rms_after2'][:-1], 'twice')
  for name in SETTINGS['forced']['gradient_names']:
    key = f'forced/weight_after1/{name}_f64'
    if key in STORED:
      mine = edm2_weights.at(once, name)
      near(mine, edm2_weights.array(name, STORED[key], HEAD), name, 1e-6)
  # Gains are no weights.
  gains = [
    name for name in SETTINGS['train']['parameter_names'] if 'gain' in name
  ]
  for name in gains:
    assert edm2_weights.at(once, name) == edm2_weights.at(params, name)


def test_four_steps_are_edm2s(monkeypatch):
  """Losses, gradients, and what Adam makes of the weights.

  Their loss is a sum over pixels, ours a mean, so Adam's eps is as much
  smaller.
  """
  bound, params = model(monkeypatch)
  settings, pixels = SETTINGS['train'], 16 * 16 * 3
  tx = optimizer.make_optimizer(
    optimizer.AdamOptions(1.0, b1=0.9, b2=0.99, eps=1e-8 / pixels)
  )
  state = tx.init(params)
  project = forced_normalization.projection(bound.net, bound.objective)

  @jax.jit
  def step(params, state, rate, images, noise, normal, label):
    logsnr = -2 * (settings['P_mean'] + settings['P_std'] * normal)

    def objective(params):
      denoise = bound.denoiser(params, label=label, upsampled=None, level=None)
      value = losses.simple(
        denoise, images, noise, logsnr=logsnr, target=Edm(0.5)
      )
      given = {'logsnr': logsnr}
      total, _ = diffusion_score.with_uncertainty(
        bound.objective, params, value, given, train=True
      )
      return total.mean()

    params = project(params)
    loss, grads = jax.value_and_grad(objective)(params)
    updates, state = tx.update(grads, state, params)
    updates = jax.tree.map(lambda u: rate * u, updates)
    return loss, grads, optax.apply_updates(params, updates), state

  for i in range(settings['steps']):
    loss, grads, params, state = step(
      params,
      state,
      STORED['train/lr_f64'][i].astype(np.float32),
      last('train/images')[i],
      last('train/noise')[i],
      STORED['train/rnd_normal'][i].reshape(-1),
      STORED['train/y'][i].argmax(-1),
    )
    assert float(loss) * pixels == pytest.approx(
      STORED['train/loss_f64'][i], rel=1e-5
    )
    if i:
      continue
    for name in settings['parameter_names']:
      key = f'train/grad0/{name}_f64'
      if key in STORED:
        mine = pixels * edm2_weights.at(grads, name)
        near(mine, edm2_weights.array(name, STORED[key], HEAD), name)
    found = names_of(grads, settings['parameter_names']).values()
    rms = [pixels * float(jnp.sqrt(jnp.mean(g**2))) for g in found]
    np.testing.assert_allclose(rms, STORED['train/grad0_rms_f64'], rtol=1e-4)
  for name in settings['parameter_names']:
    key = f'train/after/{name}_f64'
    if key in STORED:
      mine = edm2_weights.at(params, name)
      near(mine, edm2_weights.array(name, STORED[key], HEAD), name, 1e-4)
  found = names_of(params, settings['parameter_names']).values()
  rms = [float(np.sqrt(np.square(x).mean())) for x in found]
  np.testing.assert_allclose(rms, STORED['train/after_rms_f64'], rtol=1e-4)


def test_other_networks_are_left_alone():
  net = UNet(4, multipliers=(1,), num_blocks=1)
  of = functools.partial(forced_normalization.projection, net)
  assert of(Objective()) is None
  assert of(Objective(uncertainty=LossUncertainty())) is None
  kernel = jnp.arange(4.0)
  params = {'conv': {'kernel': kernel}, 'loss_uncertainty': {'kernel': kernel}}
  own = of(Objective(uncertainty=LossUncertainty(is_normalized=True)))
  found = own(params)
  np.testing.assert_array_equal(found['conv']['kernel'], kernel)
  np.testing.assert_array_equal(
    found['loss_uncertainty']['kernel'], mp.normalize_kernel(kernel)
  )
