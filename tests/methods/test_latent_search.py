"""The parts of the search against PULSE's public code, and what it keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.distributed import device_mesh
from cdm.methods import latent_search
from cdm.methods.latent_search import Search
from cdm.ops.keys import image_keys
from cdm.ops.reflected_bicubic import shrink

LAYERS, LATENT, SIZE, LOW = 4, 6, 8, 4
SIDES = (4, 4, 8, 8)


def match(key, mine):
  tables, arrays = oracle('pulse')
  assert_matches(mine, arrays[key], tables['keys'][key]['tol'], key)


def test_geocross_and_its_gradient_are_those_of_the_published_code():
  """Also where two latents are equal, which are at an angle of 0."""
  latent = oracle('pulse')[1]['loss/latent']
  with jax.enable_x64(True):
    value, gradient = jax.value_and_grad(
      lambda w: latent_search.geocross(w).sum()
    )(jnp.asarray(latent, jnp.float64))
    match('loss/geocross_f64', value)
    match('loss/geocross_grad_f64', gradient[:, :, ::8])
  match('loss/geocross_f32', latent_search.geocross(latent).sum())


def test_the_loss_is_that_of_the_published_code():
  tables, arrays = oracle('pulse')
  draw = np.random.Generator(np.random.PCG64(tables['settings']['seed'] + 1))
  base = draw.random((1, 3, 32, 32), dtype='float32')
  noise = draw.random((1, 3, 1024, 1024), dtype='float32')
  image = np.float32(0.8) * base.repeat(32, axis=2).repeat(32, axis=3)
  image += np.float32(0.2) * noise
  x, z = (
    2.0 * jnp.asarray(y).transpose(0, 2, 3, 1) - 1.0
    for y in (image, arrays['loss/ref_im'])
  )
  match('loss/L2', jnp.maximum(latent_search.l2(x, z), 0.002).sum())


@pytest.mark.parametrize('name', latent_search.SCHEDULES)
def test_learning_rates_are_those_of_the_published_code(name):
  steps = oracle('pulse')[0]['settings']['steps']
  match(f'schedule/{name}', latent_search.SCHEDULES[name](steps))


def test_adam_on_the_sphere_is_that_of_the_published_code():
  """And every vector keeps the norm of its start."""
  arrays = oracle('pulse')[1]
  rates = 0.4 * latent_search.SCHEDULES['linear1cycledrop'](30)
  with jax.enable_x64(True):
    x, target = (jnp.asarray(arrays[f'sphere/{n}']) for n in ('x0', 'target'))
    radii = jnp.sqrt((x**2).sum(axis=-1, keepdims=True) + 1e-9)
    moments, seen = (jnp.zeros_like(x),) * 2, []
    for count, rate in enumerate(rates, start=1):
      x, moments = latent_search.spherical_adam(
        x, x - target, moments, radii, count, rate
      )
      seen.append(x)
    match('sphere/adam', jnp.stack([seen[n - 1] for n in (1, 2, 5, 30)]))
    norms = jnp.sqrt((x**2).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(norms, radii, rtol=1e-9)


def toy(w, noise):
  """Draws [N, 8, 8, 3] by a fixed random map of latents and noise."""
  rng = np.random.default_rng(0)
  scale = (LAYERS * LATENT) ** -0.5
  a = scale * rng.standard_normal((LAYERS, LATENT, LOW, LOW, 3))
  x = jnp.einsum('nle,lehwc->nhwc', w, a.astype(np.float32))
  coarse = 0.5 * x + 0.05 * (noise[0] + noise[1])[..., None]
  fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
  return fine + 0.05 * (noise[2] + noise[3])[..., None]


@functools.cache
def target():
  """-> low-res images [3, 4, 4, 3] that the toy can draw."""
  v = jax.random.normal(jax.random.key(5), (3, LAYERS, LATENT))
  w = latent_search.w_of_v(v, jnp.zeros(LATENT), jnp.ones(LATENT))
  return shrink(toy(w, [jnp.zeros((3, n, n)) for n in SIDES]), LOW)


@functools.partial(jax.jit, static_argnames=('options', 'draw'))
def run(lowres, keys, options, draw=toy):
  space = latent_search.Space(draw, jnp.zeros(LATENT), jnp.ones(LATENT), SIDES)
  return latent_search.search(space, lowres, keys=keys, options=options)


def keys(*numbers):
  return image_keys(0, np.array(numbers))


GOOD = Search()  # the numbers of the authors


def test_a_search_finds_images_that_the_generator_can_draw():
  start = run(target(), keys(0, 1, 2), GOOD._replace(steps=1))
  x = run(target(), keys(0, 1, 2), GOOD)
  distance, before = (latent_search.l2(y, target()) for y in (x, start))
  assert (distance <= GOOD.eps).all() and (before > 5 * GOOD.eps).all()


def test_an_image_depends_on_its_own_key_and_low_res_image_only():
  x = run(target(), keys(0, 1, 2), GOOD)
  moved = run(target()[jnp.array([2, 0, 0])], keys(2, 0, 7), GOOD)
  np.testing.assert_allclose(moved[:2], x[jnp.array([2, 0])], atol=1e-4)
  assert float(jnp.abs(moved[1] - moved[2]).max()) > 1e-2


def test_the_mesh_changes_the_speed_not_the_images():
  mesh = device_mesh.make_mesh(devices=jax.devices()[:2])
  given = {'lowres': np.asarray(target())[:2].repeat(2, axis=0)}
  split = device_mesh.shard_batch(given, mesh)['lowres']
  options = GOOD._replace(restarts=2, steps=30)
  x = run(split, keys(0, 1, 2, 3), options)
  alone = run(jnp.asarray(given['lowres']), keys(0, 1, 2, 3), options)
  np.testing.assert_allclose(x, alone, atol=1e-4)


def test_the_best_image_is_kept_and_not_the_last():
  """With a learning rate that throws the search about."""
  seen = []

  def draw(w, noise):
    x = toy(w, noise)
    jax.debug.callback(lambda x: seen.append(x), x)
    return x

  options = Search(
    steps=25, learning_rate=3.0, schedule='fixed', geocross_weight=0.0, eps=1e-9
  )
  x = jax.block_until_ready(run(target(), keys(0, 1, 2), options, draw))
  jax.effects_barrier()
  best, *distances = (
    np.asarray(latent_search.l2(y, target())) for y in (x, *seen[:25])
  )
  np.testing.assert_allclose(best, np.min(distances, axis=0), rtol=1e-2)
  assert (best < 0.9 * distances[-1]).any()  # so that the last was not the best


def test_of_several_starts_the_best_is_kept():
  few = GOOD._replace(steps=10, geocross_weight=0.0, eps=1e-9)
  one, four = (
    latent_search.l2(
      run(target(), keys(0, 1, 2), few._replace(restarts=n)), target()
    )
    for n in (1, 4)
  )
  assert (four <= one + 1e-6).all() and (four < one - 1e-6).any()


@pytest.mark.parametrize('noise_maps', [1, 9])
def test_noise_maps_keep_their_norms_and_the_last_is_zero(noise_maps):
  seen = []

  def draw(w, noise):
    jax.debug.callback(lambda *maps: seen.append(maps), *noise)
    return toy(w, noise)

  options = GOOD._replace(steps=3, noise_maps=noise_maps, learning_rate=1.0)
  jax.block_until_ready(run(target(), keys(0, 1, 2), options, draw))
  jax.effects_barrier()
  norms = [[np.linalg.norm(m, axis=(1, 2)) for m in maps] for maps in seen]
  for one in norms[1:]:
    np.testing.assert_allclose(one, norms[0], rtol=1e-5)
  moved = [
    not all(np.allclose(maps[layer], seen[0][layer]) for maps in seen)
    for layer in range(LAYERS)
  ]
  assert moved == [layer < min(noise_maps, 3) for layer in range(LAYERS)]
  assert not np.any(seen[0][-1])


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(steps=0), 'method.search.steps is 0'),
    (dict(restarts=0), 'method.search.restarts is 0'),
    (dict(eps=0.0), 'method.search.eps is 0.0; it must be above 0'),
    (dict(geocross_weight=-1.0), 'geocross_weight is -1.0'),
    (dict(schedule='cosine'), "schedule is 'cosine'; known are fixed"),
  ],
)
def test_an_option_out_of_range_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    latent_search.check(Search(**change))
