"""Details over a mean: the mean stays, the residual is drawn and blended."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_params, smoke_runs

from cdm.config import loader, stage
from cdm.data import low_res_inputs
from cdm.diffusion import (
  dpm_solvers,
  grids,
  parameterization,
  schedules,
)
from cdm.methods import degraded_inputs
from cdm.models.unshuffled_resnet import UnshuffledResnet
from cdm.ops import resize
from cdm.ops.keys import image_keys
from cdm.sampling import canvas_plan, cascade, picture_rows
from cdm.sampling.canvas_upscaler import CanvasUpscaler, Task

CONFIG = smoke_runs.CONFIGS / 'photo_detailed.py'
SMALL = [
  ('model.mean.features', '16'), ('model.mean.num_blocks', '1'),
  ('model.mean.embedding_features', '3'),
  ('model.widths', '(4, 4, 4)'), ('model.blocks', '(0, 2, 0)'),
  ('model.embedding_features', '4'), ('pipeline.image_size', '32'),
  ('lowres.size', '8'), ('sampler.grid.num_steps', '3'),
]  # fmt: skip
SCALE = 0.09


@pytest.fixture(scope='module')
def built():
  return stage.stage(loader.load(CONFIG, SMALL))


@pytest.fixture(scope='module')
def params(built):
  """-> parameters that are random, and none is zero."""
  return random_params.moved(built.method.init(jax.random.key(0)))


def mean_of(params, low, levels):
  """-> [B, 32, 32, 3], by the network of photo_faithful itself."""
  net = UnshuffledResnet(
    features=16, num_blocks=1, patch_size=4, embedding_features=3
  )
  up = resize.resize(low, 32, method='bicubic')
  found = net.apply({'params': params['mean']}, up, levels, train=False)
  return jnp.clip(found.image, -1, 1)


def batch(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (4, 32, 32, 3), np.uint8),
    'label': np.zeros(4, np.int32),
  }


def test_the_mean_is_not_trained_and_the_details_are(built, params):
  def loss(params):
    key = jax.random.key(3)
    return built.method.loss(params, batch(), key=key, train=True)[0].mean()

  grads = jax.jit(jax.grad(loss))(params)
  for leaf in jax.tree.leaves(grads['mean']):
    assert not leaf.any()
  for leaf in jax.tree.leaves(grads['detail']):
    assert leaf.any()


def test_a_new_network_scores_the_residual_over_the_mean(built, params):
  """It predicts v = 0: the loss is |alpha eps - sigma r|^2 in closed form."""
  fresh = built.method.init(jax.random.key(0))
  fresh = {'mean': params['mean'], 'detail': fresh['detail']}
  given, key = batch(), jax.random.key(5)
  found, scalars = built.method.loss(fresh, given, key=key, train=False)
  x_0 = given['image'] / 127.5 - 1
  z = resize.resize(jnp.asarray(x_0), 8, method='bicubic')
  mean = mean_of(params, z, degraded_inputs.clean_levels(4, 4.0, 4))
  r = (x_0 - mean) / SCALE
  # Over noise of all images: E |alpha eps - sigma r|^2 = alpha^2 + sigma^2 r^2.
  alpha2 = jax.nn.sigmoid(scalars['logsnr'])
  expected = alpha2 + (1 - alpha2) * (r**2).mean(axis=(1, 2, 3))
  np.testing.assert_allclose(found, expected, rtol=0.1)


def test_degraded_inputs_of_a_batch_are_used(built, params):
  given = batch()
  corner = np.zeros((4, 32, 32, 3), np.uint8)
  corner[:, :11, :11] = np.random.default_rng(1).integers(
    0, 256, (4, 11, 11, 3), np.uint8
  )
  given |= {
    'lowres': corner,
    'lowres_size': np.full(4, 11, np.int32),
    'levels': np.tile(np.float32([1.5, 0.5, 0.2, 0.1]), (4, 1)),
  }

  def loss(given):
    key = jax.random.key(5)
    return built.method.loss(params, given, key=key, train=False)[0]

  base = loss(given)
  for name, value in {
    'lowres': 255 - corner, 'levels': np.zeros((4, 4), np.float32)
  }.items():  # fmt: skip
    assert np.abs(loss(given | {name: value}) - base).max() > 1e-4


def upscaler(built, params, detail):
  made = cascade.Stage.of(built, params, None, name='photo')
  found = CanvasUpscaler.of(made, batch_size=4)
  cut = canvas_plan.any_factor(made.canvas.any_factor, 64)
  assert cut.reach == 48 and cut.size == 192
  return dataclasses.replace(found, cut=cut, detail=detail)


IMAGE = np.random.default_rng(0).integers(0, 256, (1, 60, 100, 3), np.uint8)


def drawn(built, params, detail):
  """-> (picture [240, 400, 3], Plan)."""
  found = upscaler(built, params, detail)
  plan = found.plan((240, 400))
  task = Task(picture_rows.WholePictures(IMAGE))
  return np.concatenate(list(found.draw(task, plan)), axis=1)[0], plan


def test_a_picture_in_windows_is_that_of_the_networks_on_the_whole(
  built, params
):
  """Of four evaluations, whose windows are joined each time."""
  found, plan = drawn(built, params, 1.0)
  assert plan.is_exact and plan.evaluations == 4
  assert len(plan.columns) > 1
  up = resize.resize(
    IMAGE / np.float32(127.5) - 1, (240, 400), method='bicubic'
  )
  levels = low_res_inputs.levels(4, low_res_inputs.CLEAN)[None]
  known = built.net.apply({'params': params}, up, levels, method='known')
  mean = jnp.clip(known.mean, -1, 1)
  told = jnp.concatenate([mean, up, known.features], axis=-1)
  task = Task(picture_rows.WholePictures(IMAGE))
  x_t = jnp.asarray(task.noise((0, 0), (240, 400), 0, 0, of=(240, 400)))

  def denoise(x, logsnr):
    output = built.net.apply(
      {'params': params}, x, logsnr, known=told, damage=levels, train=False
    )
    read = parameterization.predict('v', output, x, logsnr=logsnr)
    low, high = ((bound - mean) / SCALE for bound in (-1, 1))
    x_0 = jnp.clip(read.x_0, low, high)
    eps = parameterization.eps_from_x_0(x, x_0, logsnr=logsnr)
    return parameterization.Prediction(x_0, eps)

  levels_of = grids.trailing(schedules.cosine(1000), num_steps=3)
  r = dpm_solvers.dpm_solver_pp_2m(
    denoise, x_t, logsnrs=levels_of, noise=lambda j: 0.0
  )
  expected = np.asarray(mean + SCALE * r)[0]
  assert np.abs(expected - np.asarray(mean)[0]).max() > 0.05
  # Windows at the far ends end with the picture, as the networks do.
  inner = (slice(0, 240 - 50), slice(0, 400 - 50))
  np.testing.assert_allclose(found[inner], expected[inner], atol=1e-4)


def test_a_blend_lies_between_the_mean_and_the_draw(built, params):
  draw, plan = drawn(built, params, 1.0)
  mean, alone = drawn(built, params, 0.0)
  assert plan.evaluations == 4 and alone.evaluations == 1
  half, _ = drawn(built, params, 0.25)
  np.testing.assert_allclose(half, mean + 0.25 * (draw - mean), atol=1e-5)


def test_small_images_are_drawn_over_the_mean(built, params):
  """As training and `cdm evaluate` draw them, one key for each image."""
  low = jnp.linspace(-1, 1, 2 * 192).reshape(2, 8, 8, 3)
  levels = degraded_inputs.clean_levels(2, 4.0, 4)
  fresh = built.method.init(jax.random.key(0))
  fresh = {'mean': params['mean'], 'detail': fresh['detail']}
  found = built.method.sample(
    fresh, keys=image_keys(0, jnp.arange(2)), lowres=low
  )
  mean = mean_of(params, low, levels)
  # v = 0 at every step: x_0 = alpha x_t, and what is left is small or clipped.
  assert found.shape == (2, 32, 32, 3)
  assert 1e-4 < np.abs(found - mean).mean() < 3 * SCALE
  assert np.abs(found).max() <= 1 + 1e-5


@pytest.mark.parametrize(
  'key, value, message',
  [
    ('method.residual_scale', 'None', 'method.residual_scale is None; it must'),
    ('sampler.project_lowres', 'True', 'sampler.project_lowres is True, which'),
    ('lowres.augment', 'noise', r"this network takes 'none' and 'bicubic'"),
    ('pipeline.image_size', '36', 'image_size is 36; the network takes whole'),
    ('model.mean.features', '8', 'mean.features is 8; .* a multiple of 16'),
  ],
)
def test_what_details_cannot_be_drawn_with_is_refused(key, value, message):
  overrides = [*SMALL, (key, value)]
  if key == 'pipeline.image_size':
    overrides.append(('lowres.size', '9'))
  with pytest.raises(ValueError, match=message):
    stage.stage(loader.load(CONFIG, overrides))
