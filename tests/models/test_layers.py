"""Layers against NumPy in float64 and the published embedding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.distributed import device_mesh
from cdm.models import layers


def normal(seed, shape, scale=1.0):
  rng = np.random.default_rng(seed)
  return np.asarray(scale * rng.standard_normal(shape), np.float32)


def randomised(variables, seed=0):
  """Replaces every parameter, so that nothing is zero by initialisation."""
  leaves, tree = jax.tree.flatten(variables)
  return jax.tree.unflatten(
    tree, [normal(seed + i, a.shape, 0.3) for i, a in enumerate(leaves)]
  )


@pytest.mark.parametrize('features', [32, 64])
def test_the_sinusoids_are_those_of_the_published_code(features):
  tables, arrays = oracle('adm_unet')
  t = arrays['timestep_embedding/t']
  for key, dtype in ((f'f32/{features}', 'f4'), (f'f64/{features}', 'f8')):
    with jax.enable_x64(dtype == 'f8'):
      mine = layers.timestep_embedding(jnp.asarray(t, dtype), features)
    key = f'timestep_embedding/{key}'
    assert mine.dtype == dtype
    assert_matches(mine, arrays[key], tables['keys'][key]['tol'], key)


def test_an_odd_embedding_ends_in_zeros():
  embedding = layers.timestep_embedding(jnp.array([3, 70]), 7)
  even = layers.timestep_embedding(jnp.array([3, 70]), 6)
  np.testing.assert_array_equal(embedding[:, :6], even)
  np.testing.assert_array_equal(embedding[:, 6], 0)


def test_what_is_embedded_of_a_noise_level():
  """From the definition: alpha^2 + sigma^2 = 1, logsnr = 2 log alpha/sigma."""
  alpha_bar = np.array([1e-6, 0.01, 0.3, 0.5, 0.9, 0.9999])
  logsnr = jnp.asarray(np.log(alpha_bar / (1 - alpha_bar)), jnp.float32)
  np.testing.assert_allclose(
    layers.condition_scalar(logsnr, 'sqrt_alpha_bar'),
    np.sqrt(alpha_bar),
    rtol=1e-5,
  )
  # The angle of (alpha, sigma), a quarter turn being 1.
  np.testing.assert_allclose(
    layers.condition_scalar(logsnr, 'logsnr'),
    np.arctan2(np.sqrt(1 - alpha_bar), np.sqrt(alpha_bar)) / (np.pi / 2),
    rtol=1e-5,
  )
  ends = jnp.array([-jnp.inf, -500.0, 500.0, jnp.inf])
  np.testing.assert_allclose(
    layers.condition_scalar(ends, 'logsnr'), [1, 1, 0, 0], atol=1e-30
  )


def test_halving_averages_and_doubling_repeats():
  x = normal(1, (2, 4, 6, 3))
  squares = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
  np.testing.assert_allclose(layers.halve(x), np.mean(squares, 0), atol=1e-6)
  expected = x.repeat(2, axis=1).repeat(2, axis=2)
  np.testing.assert_array_equal(layers.double(x), expected)


def test_a_patch_is_a_pixel_and_comes_back():
  x = normal(2, (2, 4, 6, 3))
  y = layers.space_to_depth(x, 2)
  assert y.shape == (2, 2, 3, 12)
  np.testing.assert_array_equal(
    y[1, 1, 2], np.concatenate([x[1, 2, 4], x[1, 2, 5], x[1, 3, 4], x[1, 3, 5]])
  )
  np.testing.assert_array_equal(layers.depth_to_space(y, 2), x)


def test_attention_is_a_softmax_over_the_square_root_of_the_heads_width():
  heads, c = 2, 8
  attention = layers.Attention(num_heads=heads, norm_groups=2)
  x = normal(3, (2, 3, 2, c))
  variables = randomised(attention.init(jax.random.key(0), x))
  mine = attention.apply(variables, x)

  p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables['params'])
  groups = x.astype(np.float64).reshape(2, 6, 2, 4)
  groups = groups - groups.mean(axis=(1, 3), keepdims=True)
  groups /= np.sqrt((groups**2).mean(axis=(1, 3), keepdims=True) + 1e-5)
  h = groups.reshape(2, 6, c) * p['norm']['scale'] + p['norm']['bias']
  q, k, v = np.split(h @ p['qkv']['kernel'] + p['qkv']['bias'], 3, axis=-1)
  out = np.zeros((2, 6, c))
  for b in range(2):
    for i in range(heads):
      s = slice(4 * i, 4 * i + 4)
      logits = q[b, :, s] @ k[b, :, s].T / np.sqrt(4)
      weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
      out[b, :, s] = weights @ v[b, :, s]
  out = out @ p['out']['kernel'] + p['out']['bias']
  np.testing.assert_allclose(mine, x + out.reshape(x.shape), atol=2e-5)


def test_the_softmax_is_float32_when_the_computation_is_not():
  attention = layers.Attention(num_heads=1, norm_groups=2, dtype=jnp.bfloat16)
  x = jnp.zeros((1, 2, 2, 4), jnp.bfloat16)
  variables = attention.init(jax.random.key(0), x)
  jaxpr = jax.make_jaxpr(attention.apply)(variables, x)
  assert attention.apply(variables, x).dtype == jnp.bfloat16
  assert str(jaxpr).count('f32[1,1,4,4] = exp ') == 1, jaxpr
  assert 'bf16[1,1,4,4] = exp' not in str(jaxpr)


@pytest.mark.parametrize('embedding', ['film', 'additive'])
@pytest.mark.parametrize('skip_rescale, gain', [(False, 1), (True, 0.5**0.5)])
def test_a_fresh_block_is_the_identity_on_its_skip(
  embedding, skip_rescale, gain
):
  block = layers.ResBlock(
    features=4,
    embedding=embedding,
    resample='half',
    skip_rescale=skip_rescale,
    norm_groups=2,
  )
  x, emb = normal(4, (1, 4, 4, 4)), normal(5, (1, 6))
  y, _ = block.init_with_output(jax.random.key(0), x, emb, train=False)
  np.testing.assert_allclose(y, gain * layers.halve(x), rtol=1e-6)

  attention = layers.Attention(
    num_heads=2, skip_rescale=skip_rescale, norm_groups=2
  )
  y, _ = attention.init_with_output(jax.random.key(0), x)
  np.testing.assert_allclose(y, gain * x, rtol=1e-6)


@pytest.mark.parametrize('rate', [0.25, 0.75])
def test_dropout_keeps_the_mean_and_draws_for_each_example(rate):
  h = jnp.full((3, 4000), 2.0)
  key, examples = jax.random.key(0), jnp.asarray([7, 8, 7])
  found = np.asarray(layers.dropout(h, rate, key, examples))
  np.testing.assert_allclose(np.unique(found), [0, 2 / (1 - rate)], rtol=1e-6)
  # Five standard errors of a share of 4000 are 0.035.
  np.testing.assert_allclose((found == 0).mean(axis=1), rate, atol=0.035)
  np.testing.assert_array_equal(found[0], found[2])
  assert (found[0] != found[1]).any()


def test_dropout_of_everything_leaves_zeros_and_of_nothing_all():
  h, examples = jnp.ones((2, 3)), jnp.arange(2)
  for rate, kept in ((1.0, 0.0), (0.0, 1.0)):
    found = layers.dropout(h, rate, jax.random.key(0), examples)
    np.testing.assert_array_equal(found, np.full((2, 3), kept))


def test_channels_are_grouped_and_not_rows_or_columns(monkeypatch):
  grouped = []

  def record(channels, norm_groups):
    grouped.append((channels, norm_groups))
    return 1

  monkeypatch.setattr(layers, 'group_count', record)
  x = jax.ShapeDtypeStruct((5, 4, 6, 8), jnp.float32)
  emb = jax.ShapeDtypeStruct((5, 3), jnp.float32)
  block = layers.ResBlock(features=10, embedding='film', norm_groups=2)
  init = functools.partial(block.init, jax.random.key(0), train=False)
  jax.eval_shape(init, x, emb)
  assert grouped == [(8, 2), (10, 2)]
  attention = layers.Attention(num_heads=2, norm_groups=4)
  jax.eval_shape(functools.partial(attention.init, jax.random.key(0)), x)
  assert grouped[2:] == [(8, 4)]


def test_a_cpu_sees_all_pixels_as_one_axis_and_gives_the_same_numbers():
  x, kernel = normal(3, (2, 4, 6, 3)), normal(4, (3, 5))

  def layer(x):
    return x @ kernel

  mesh = device_mesh.make_mesh(data=2, devices=jax.devices()[:2])
  on_cpu = device_mesh.in_mesh(functools.partial(layers.on_pixels, layer), mesh)
  np.testing.assert_allclose(
    jax.jit(on_cpu)(x), layers.on_pixels(layer, x), atol=1e-5
  )
  assert 'f32[48,5]' in str(jax.make_jaxpr(on_cpu)(x))
  elsewhere = functools.partial(layers.on_pixels, layer)
  assert 'f32[48,5]' not in str(jax.make_jaxpr(elsewhere)(x))
