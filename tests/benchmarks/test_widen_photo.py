"""A widened network computes what the narrow one does, and learns with more."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import widen_photo
from cdm.models.unshuffled_resnet import UnshuffledResnet


def test_a_wider_network_computes_the_same_and_its_new_channels_learn():
  narrow, wide = (
    UnshuffledResnet(features=n, num_blocks=2, embedding_features=5)
    for n in (6, 9)
  )
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.uniform(-1, 1, (1, 16, 12, 3)), jnp.float32)
  levels = jnp.asarray(rng.uniform(0, 1, (1, 4)), jnp.float32)
  params = narrow.init(jax.random.key(0), x, levels, train=False)['params']
  params = jax.tree.map(
    lambda p: jnp.asarray(0.2 * rng.standard_normal(p.shape), p.dtype), params
  )
  more = widen_photo.widened(params, 9, rng)
  fresh = wide.init(jax.random.key(1), x, levels, train=False)['params']
  assert jax.tree.map(jnp.shape, more) == jax.tree.map(jnp.shape, fresh)

  def image(net, params):
    return net.apply({'params': params}, x, levels, train=False).image

  np.testing.assert_allclose(
    image(wide, more), image(narrow, params), atol=1e-5
  )
  slopes = jax.grad(lambda p: jnp.sum(jnp.sin(image(wide, p))))(more)
  for name in ('conv_out', 'block_0'):
    layer = slopes[name] if name == 'conv_out' else slopes[name]['conv2']
    assert np.abs(layer['kernel'][:, :, 6:]).max() > 1e-4, name
