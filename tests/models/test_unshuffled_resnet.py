"""The network on squares of pixels: what reaches a pixel, and how it starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.models import flops, unshuffled_resnet
from cdm.models.unshuffled_resnet import UnshuffledResnet

NET = UnshuffledResnet(
  features=6, num_blocks=2, patch_size=4, embedding_features=3
)


def params_of(net, seed=None):
  """-> parameters; with a seed all of them are random, and none is zero."""
  x, levels = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 4))
  params = net.init(jax.random.key(0), x, levels, train=False)['params']
  if seed is None:
    return params
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda p: jnp.asarray(0.3 * rng.standard_normal(p.shape), p.dtype), params
  )


def run(net, params, x, levels=None):
  levels = jnp.zeros((x.shape[0], 4)) if levels is None else levels
  return net.apply({'params': params}, jnp.asarray(x), levels, train=False)


def random_image(height, width, seed=0, count=1):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


def test_a_new_network_leaves_the_enlarged_image_as_it_is():
  x = random_image(16, 24)
  levels = jnp.ones((1, 4))
  np.testing.assert_array_equal(run(NET, params_of(NET), x, levels).image, x)


def test_a_square_depends_on_pixels_within_the_margin_and_no_others():
  """The gradient of a square's pixels is zero beyond it, and not within."""
  size, params = 160, params_of(NET, seed=1)
  assert NET.margin == 24  # 6 convolutions of 3 squares, 4 pixels each
  first = 80  # the square at 80..83

  def square(x):
    return run(NET, params, x).image[:, first : first + 4, first : first + 4]

  reached = jax.grad(lambda x: jnp.sum(jnp.sin(3 * square(x))))(
    jnp.asarray(random_image(size, size))
  )
  rows = np.flatnonzero(np.abs(reached).sum(axis=(0, 2, 3)))
  columns = np.flatnonzero(np.abs(reached).sum(axis=(0, 1, 3)))
  for found in (rows, columns):
    assert (found[0], found[-1]) == (first - 24, first + 3 + 24)


def test_tiles_that_overlap_by_the_margin_give_the_whole_image():
  params, x = params_of(NET, seed=2), random_image(64, 96)
  whole = run(NET, params, x).image
  left = run(NET, params, x[:, :, :72]).image[:, :, :48]
  right = run(NET, params, x[:, :, 24:]).image[:, :, 24:]
  tiled = np.concatenate([left, right], axis=2)
  np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_the_levels_change_the_result_of_their_own_image_alone():
  params, x = params_of(NET, seed=3), random_image(16, 16, count=2)
  clean = run(NET, params, x).image
  noisy = run(NET, params, x, jnp.zeros((2, 4)).at[1, 2].set(1.0)).image
  np.testing.assert_array_equal(noisy[0], clean[0])
  assert float(jnp.abs(noisy[1] - clean[1]).max()) > 1e-2


def test_features_are_what_the_last_layer_is_computed_from():
  params, x = params_of(NET, seed=4), random_image(16, 16)
  found = run(NET, params, x)
  assert found.features.shape == (1, 4, 4, 6)
  kernel, bias = (params['conv_out'][k] for k in ('kernel', 'bias'))
  # At levels of 0 the embedding is that of the biases, and the gate one number
  # for each channel.
  emb = params['levels1']['bias']
  emb = jax.nn.silu(emb) @ params['levels2']['kernel']
  emb = jax.nn.silu(emb + params['levels2']['bias'])
  gate = emb @ params['gate']['kernel'] + params['gate']['bias']
  # Square (1, 2), its pixel (3, 0) and colour 1 is channel (3 * 4 + 0) * 3 + 1.
  near = found.features[0, 0:3, 1:4]
  value = jnp.sum(near[..., None] * kernel, axis=(0, 1, 2)) + bias
  expected = x[0, 1 * 4 + 3, 2 * 4 + 0, 1] + value[37] * (1 + gate[37])
  np.testing.assert_allclose(found.image[0, 7, 8, 1], expected, rtol=1e-4)


def test_the_shipped_size_has_the_cost_that_is_computed_by_hand():
  net = UnshuffledResnet()
  shapes = [
    jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 64, 64, 3), (1, 4))
  ]
  params, cost = flops.trace_call(
    lambda *given: net.init_with_output(*given, train=False), shapes, {}
  )
  layer = 9 * 48 * 48 + 48
  film = 32 * 96 + 96
  embedding = (4 * 32 + 32) + (32 * 32 + 32)
  gate = 32 * 48 + 48
  count = 26 * layer + 13 * film + gate + embedding
  assert flops.count_parameters(params) == count
  convolutions = 26 * 2 * 9 * 48 * 48 * 16 * 16
  assert convolutions < cost < 1.001 * convolutions


def test_an_image_of_broken_squares_is_refused():
  with pytest.raises(ValueError, match='18x16 pixels.*multiples of 4'):
    run(NET, params_of(NET), random_image(16, 18))


@pytest.mark.parametrize(
  ('field', 'value', 'said'),
  [
    ('features', 0, 'features is 0'),
    ('num_blocks', 0, 'num_blocks is 0'),
    ('patch_size', 65, 'patch_size is 65'),
    ('dtype', 'float16', "dtype is 'float16'"),
  ],
)
def test_what_no_network_can_have_is_refused(field, value, said):
  with pytest.raises(ValueError, match=said):
    unshuffled_resnet.check(UnshuffledResnet(**{field: value}))


def test_bfloat16_keeps_the_image_in_float32():
  net = NET.clone(dtype='bfloat16')
  params, x = params_of(net, seed=5), random_image(16, 16)
  found = run(net, params, x)
  assert found.image.dtype == jnp.float32
  exact = run(NET, params, x).image
  scale = float(jnp.abs(exact - x).max())
  assert 0 < float(jnp.abs(found.image - exact).max()) < 0.05 * scale
  assert net.parameter_dtype('block_1/conv1/kernel') == jnp.bfloat16
  assert net.parameter_dtype('conv_out/kernel') == jnp.float32
