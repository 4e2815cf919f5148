"""StyleGAN as one of our methods: its two latents, its Gaussian, its limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.methods import latent_search, pulse
from cdm.methods.latent_search import Search
from cdm.methods.lowres_conditioning import Lowres
from cdm.methods.pulse import PulseOptions
from cdm.models.discriminator import Discriminator
from cdm.models.stylegan import Generator
from cdm.ops import pixels
from cdm.ops.keys import image_keys

SEARCHED = PulseOptions(fit_samples=None, search=Search(steps=2))
TRAINED = PulseOptions(fit_samples=30, search=Search(steps=2))


def made(options=TRAINED, lowres=4, discriminator=True, layers=2, **fields):
  net = Generator(8, latent_size=4, feature_base=8, mapping_layers=layers)
  return pulse.pulse(
    net,
    Discriminator(features=4) if discriminator else None,
    options,
    lowres=Lowres(size=lowres, **fields) if lowres else None,
  )


def parameters(method):
  """-> parameters whose generator adds noise, which a new one does not."""
  params = method.init(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  return tree.unflatten(leaf + 0.1 for leaf in leaves)


def test_a_gaussian_fit_is_the_mean_and_deviation_of_all_its_latents():
  """In blocks, of which the last one counts in part."""

  def w_of_z(z):
    return jnp.where(z > 0, 3.0 * z + 1.0, 0.2 * z)

  with jax.debug_key_reuse(False):  # the latents are drawn here once more
    fit = pulse.gaussian_fit(
      w_of_z, latent_size=3, num_samples=25_000, key=jax.random.key(7)
    )
    z = np.concatenate(
      [
        jax.random.normal(jax.random.fold_in(jax.random.key(7), n), (10_000, 3))
        for n in range(3)
      ]
    )[:25_000]
  w = np.asarray(w_of_z(z), np.float64)
  v = np.where(w > 0, w, 5.0 * w)  # lrelu_5 undoes lrelu_0.2
  np.testing.assert_allclose(fit['mean'], v.mean(axis=0), rtol=1e-4)
  np.testing.assert_allclose(fit['std'], v.std(axis=0, ddof=1), rtol=1e-4)


def test_a_normal_latent_becomes_what_the_mapping_makes_of_a_normal_one():
  """If that is a Gaussian through a leaky ReLU, exactly."""
  mean, std = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])

  def w_of_z(z):
    return jax.nn.leaky_relu(z * std[None] + mean[None], 0.2)

  fit = pulse.gaussian_fit(
    w_of_z, latent_size=2, num_samples=50_000, key=jax.random.key(0)
  )
  z = jax.random.normal(jax.random.key(1), (50, 1, 2))
  w = latent_search.w_of_v(z, fit['mean'], fit['std'])
  np.testing.assert_allclose(w[:, 0], w_of_z(z[:, 0]), atol=0.1)


def test_two_latents_share_an_image_as_often_as_asked():
  keys = jax.random.split(jax.random.key(0), 2000)
  draw = functools.partial(pulse.first_layer, num_layers=6, mixing=0.75)
  first = np.asarray(jax.vmap(draw)(keys))
  counts = np.bincount(first, minlength=7)
  assert counts[0] == 0  # the first latent always has a layer
  expected = np.array([0.15] * 5 + [0.25])
  np.testing.assert_allclose(counts[1:] / 2000, expected, atol=0.03)


def test_images_are_searched_with_the_gaussian_that_was_prepared():
  method = made()
  params = parameters(method)
  ready = jax.jit(method.prepare)(params)
  assert set(ready) == {'generator', 'fit'}
  given = dict(keys=image_keys(0, np.arange(2)), lowres=jnp.zeros((2, 4, 4, 3)))
  sample = jax.jit(method.sample)
  x = sample(ready, **given)
  np.testing.assert_allclose(x, sample(params, **given), atol=1e-5)
  other = ready | {
    'fit': {'mean': ready['fit']['mean'] + 1, 'std': jnp.ones(4)}
  }
  assert float(jnp.abs(sample(other, **given) - x).max()) > 1e-3


def test_a_stage_without_a_low_res_image_draws_from_its_keys():
  method = made(lowres=None)
  assert method.is_found is None
  ready = method.prepare(parameters(method))
  assert set(ready) == {'generator'}
  x = jax.jit(method.sample)(ready, keys=image_keys(0, np.arange(3)))
  assert x.shape == (3, 8, 8, 3)
  assert float(jnp.abs(x[0] - x[1]).max()) > 1e-3


def test_a_generator_of_a_synthesis_and_a_gaussian_is_searched_only():
  method = made(SEARCHED, discriminator=False, layers=0)
  params = parameters(method)
  assert set(params) == {'generator', 'fit'}
  assert set(params['generator']) == {'synthesis'}
  ready = method.prepare(params)
  x = method.sample(
    ready, keys=image_keys(0, np.arange(1)), lowres=jnp.zeros((1, 4, 4, 3))
  )
  assert x.shape == (1, 8, 8, 3)
  batch = {'image': np.zeros((1, 8, 8, 3), np.uint8)}
  with pytest.raises(ValueError, match='discriminator is None, so this'):
    method.loss(params, batch, key=jax.random.key(0), train=True)


def test_found_are_the_images_whose_written_pixels_are_within_eps():
  method = made(TRAINED._replace(search=Search(eps=0.01)))
  levels = jnp.array(
    [0.0, 0.15, 0.25]
  )  # in [-1, 1]; 0.2 there is 0.1 in [0, 1]
  image = jnp.zeros((3, 8, 8, 3)) + levels[:, None, None, None]
  image = pixels.to_float(pixels.to_uint8(image))
  found = method.is_found(image, jnp.zeros((3, 4, 4, 3)))
  assert found.tolist() == [True, True, False]


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(options=TRAINED._replace(r1_weight=-1.0)), 'r1_weight is -1.0'),
    (dict(options=TRAINED._replace(style_mixing=2.0)), 'style_mixing is 2.0'),
    (dict(options=TRAINED._replace(fit_samples=1)), 'fitted to at least 2'),
    (dict(options=SEARCHED), 'fit_samples is None and .* is 2'),
    (dict(layers=0), 'fit_samples is 30 and model.mapping_layers is 0'),
    (dict(options=SEARCHED, layers=0), 'can be searched only'),
    (
      dict(options=TRAINED._replace(search=Search(steps=0))),
      'method.search.steps is 0',
    ),
    (dict(downsample='area'), "lowres.downsample is 'area'; PULSE"),
    (dict(augment='noise'), "lowres.augment is 'noise'; PULSE"),
    (dict(lowres=8), 'lowres.size is 8, which does not divide'),
  ],
)
def test_options_that_contradict_each_other_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    made(**change)
