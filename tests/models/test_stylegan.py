"""StyleGAN's generator: what holds whatever its weights are."""

import jax
import numpy as np
import pytest

from cdm.models.stylegan import Generator


def shapes(net):
  def init(key):
    z = np.zeros((1, net.latent_size), np.float32)
    noise = [np.zeros((1, side, side)) for side in net.noise_sides]
    image, variables = net.init_with_output(key, z, noise)
    return image, variables['params']

  return jax.eval_shape(init, jax.random.key(0))


def test_the_generator_of_faces_has_the_published_number_of_parameters():
  """[StyleGAN] sec. 2: 26.2 M, with the mapping network."""
  image, params = shapes(Generator(image_size=1024))
  assert image.shape == (1, 1024, 1024, 3)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert round(count / 1e6, 1) == 26.2


@pytest.mark.parametrize('size', [8, 16, 32, 64, 128, 256, 512])
def test_every_power_of_two_has_two_layers_for_each_doubling(size):
  net = Generator(image_size=size, latent_size=4, feature_base=512)
  image, params = shapes(net)
  assert image.shape == (1, size, size, 3)
  assert len(params['synthesis']) == len(net.sides) + 1
  assert net.num_layers == 2 * len(net.sides) == 2 * np.log2(size) - 2


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(image_size=48), 'pipeline.image_size is 48; .* power of two'),
    (dict(image_size=4), 'from 8 to 1024'),
    (dict(image_size=8, latent_size=0), 'model.latent_size is 0'),
    (dict(image_size=8, mapping_layers=-1), 'model.mapping_layers is -1'),
    (dict(image_size=64, feature_base=16), 'leaves no channels at 64 pixels'),
  ],
)
def test_a_generator_that_cannot_be_built_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    shapes(Generator(**fields))


def test_an_image_depends_on_its_own_latents_and_noise_only():
  net = Generator(image_size=8, latent_size=4, feature_base=8)
  rng = np.random.default_rng(0)
  z = rng.standard_normal((3, 4), np.float32)
  noise = [rng.standard_normal((3, n, n), np.float32) for n in net.noise_sides]
  params = net.init(jax.random.key(0), z, noise)['params']
  leaves, tree = jax.tree.flatten(params)
  leaves = [x + 0.1 for x in leaves]  # the weights of noise begin at 0
  apply = jax.jit(net.apply)
  params = {'params': tree.unflatten(leaves)}
  # Its arguments are changed below, and may be read late.
  image = jax.block_until_ready(apply(params, z, noise))
  z[1] += 1.0
  noise[3][2] += rng.standard_normal((8, 8), np.float32)
  other = apply(params, z, noise)
  np.testing.assert_allclose(image[0], other[0], atol=1e-6)
  assert (abs(image - other)[1:].max(axis=(1, 2, 3)) > 1e-3).all()
