"""Details over a mean: what reaches a pixel, how it starts, what is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.models import detail_network
from cdm.models.detail_network import DetailNetwork
from cdm.models.unshuffled_resnet import UnshuffledResnet

MEAN = UnshuffledResnet(
  features=16, num_blocks=1, patch_size=4, embedding_features=3
)
NET = DetailNetwork(
  MEAN, widths=(4, 6, 8), blocks=(1, 2, 1), embedding_features=4
)
LEVELS = jnp.zeros((1, 4))


def params_of(net, seed=None):
  """-> parameters; with a seed all of them are random, and none is zero."""
  x = jnp.zeros((1, 16, 16, 3))
  params = net.init(jax.random.key(0), x, LEVELS, method='both')['params']
  if seed is None:
    return params
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda p: jnp.asarray(0.3 * rng.standard_normal(p.shape), p.dtype), params
  )


def evaluate(params, x, known, noise=0.5, damage=LEVELS):
  return NET.apply(
    {'params': params},
    x,
    jnp.full(len(x), noise),
    known=known,
    damage=damage,
    train=False,
  )


def noise(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


def test_a_new_network_predicts_nothing():
  found = evaluate(params_of(NET), noise(1, 16, 16, 3), noise(1, 16, 16, 7))
  assert found.dtype == jnp.float32 and not found.any()


def test_a_square_depends_on_pixels_within_the_margin_and_no_others():
  """Of x_t and of what A knows; the gradient is zero beyond, and not within."""
  params, first = params_of(NET, seed=1), 88
  # From the end: 3 convolutions of 2 pixels, in squares of 4; 3 of 4, in
  # squares of 8; 4 of 8, 3 of 4, 2 of 2.
  assert NET.margin == (8 + 12 + 4) + 32 + 12 + 4 and NET.unit == 8

  def square(x, known):
    found = evaluate(params, x, known)
    return jnp.sum(jnp.sin(3 * found[:, first : first + 8, first : first + 8]))

  reached = jax.jit(jax.grad(square, argnums=(0, 1)))(
    noise(1, 184, 184, 3), noise(1, 184, 184, 7, seed=1)
  )
  for image in reached:
    rows = np.flatnonzero(np.abs(image).sum(axis=(0, 2, 3)))
    columns = np.flatnonzero(np.abs(image).sum(axis=(0, 1, 3)))
    for found in (rows, columns):
      ends = first - NET.margin, first + 7 + NET.margin
      assert (found[0], found[-1]) == ends


def test_noise_level_damage_and_all_that_is_known_reach_the_prediction():
  params = params_of(NET, seed=2)
  x, known = noise(1, 16, 16, 3), noise(1, 16, 16, 7, seed=1)
  base = evaluate(params, x, known)
  assert np.abs(evaluate(params, x, known, noise=3.0) - base).max() > 1e-3
  other = evaluate(params, x, known, damage=LEVELS.at[0, 2].set(9.0))
  assert np.abs(other - base).max() > 1e-3
  for channels in ((0, 3), (3, 6), (6, 7)):
    changed = known.at[..., slice(*channels)].add(1.0)
    assert np.abs(evaluate(params, x, changed) - base).max() > 1e-3


def test_the_mean_is_its_own_network():
  params, x = params_of(NET, seed=3), noise(2, 8, 8, 3)
  levels = noise(2, 4, seed=1)
  found = NET.apply({'params': params}, x, levels, method='known')
  own = MEAN.apply({'params': params['mean']}, x, levels, train=False)
  np.testing.assert_array_equal(found.mean, own.image)
  assert found.features.shape == (2, 8, 8, 1)
  # 16 channels of a 4 x 4 square, one in each of its pixels.
  np.testing.assert_array_equal(
    found.features[0, :4, :4].reshape(-1), own.features[0, 0, 0]
  )
  joined = NET.joined(found.mean, x, found.features)
  assert joined.shape == (2, 8, 8, 7)


def test_the_norm_is_of_each_pixel():
  x = noise(1, 4, 4, 6) * jnp.arange(1, 17).reshape(1, 4, 4, 1)
  norm = detail_network.RmsNorm()
  found = norm.apply({'params': {'scale': jnp.ones(6)}}, x)
  np.testing.assert_allclose((found**2).mean(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(
    found, x / np.sqrt((x**2).mean(-1, keepdims=True)), rtol=1e-5
  )


def test_what_decides_digits_is_used_in_float32():
  net = NET.clone(dtype='bfloat16')
  exact = {
    name
    for name in (
      'detail/conv_out/kernel', 'detail/noise/dense1/kernel',
      'detail/damage1/bias', 'detail/middle_0/norm/scale',
      'detail/norm_out/scale', 'mean/conv_out/kernel', 'mean/conv_in/kernel',
    )
    if net.parameter_dtype(name) == jnp.float32
  }  # fmt: skip
  assert len(exact) == 7
  assert net.parameter_dtype('detail/middle_0/conv1/kernel') == jnp.bfloat16


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'widths': (4, 8)}, r'widths is \(4, 8\); give 3 numbers'),
    ({'widths': (4, 0, 8)}, r'widths is \(4, 0, 8\)'),
    ({'blocks': (1, -1, 1)}, r'blocks is \(1, -1, 1\)'),
    ({'embedding_features': 1}, 'embedding_features is 1'),
    ({'dtype': 'float16'}, "dtype is 'float16'"),
    ({'mean': MEAN.clone(features=8)}, 'mean.features is 8; .* of 16'),
    ({'mean': MEAN.clone(patch_size=2)}, 'mean.patch_size is 2; it must be 4'),
  ],
)
def test_fields_that_no_network_can_have_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    detail_network.check(NET.clone(**fields))
