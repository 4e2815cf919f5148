"""The residual network that enlarges, against sums written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.models import enlarging_resnet
from cdm.models.enlarging_resnet import EnlargingResnet


def conv(x, kernel, bias):
  """-> 3x3 convolution of [H, W, F] with zeros around it."""
  h, w, _ = x.shape
  padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
  y = np.zeros((h, w, kernel.shape[-1])) + bias
  for i in range(3):
    for j in range(3):
      y += padded[i : i + h, j : j + w] @ kernel[i, j]
  return y


def doubled(x, kernel, bias):
  """-> 3x3 convolution of the picture with zeros between its pixels."""
  h, w, f = x.shape
  spread = np.zeros((2 * h, 2 * w, f))
  spread[1::2, 1::2] = x
  return conv(spread, kernel, bias)


def normalised(x, scale, bias, groups, eps):
  h, w, f = x.shape
  g = x.reshape(h * w, groups, f // groups)
  mean = g.mean(axis=(0, 2), keepdims=True)
  g = (g - mean) / np.sqrt(g.var(axis=(0, 2), keepdims=True) + eps)
  return g.reshape(h, w, f) * scale + bias


def by_hand(p, x, net):
  """-> the image of one low-res image, by the sentences of the paper."""
  h = x @ p['conv_in']['kernel'] + p['conv_in']['bias']
  for factor in (1, 2, 4):
    if factor > 1:
      deconv = p[f'deconv_x{factor}']
      h = np.maximum(doubled(h, deconv['kernel'], deconv['bias']), 0)
    for k in range(net.num_blocks):
      block = p[f'block_x{factor}_{k}']
      y = h
      for n in (1, 2):
        y = conv(y, block[f'conv{n}']['kernel'], block[f'conv{n}']['bias'])
        norm = block[f'norm{n}']
        y = normalised(
          y, norm['scale'], norm['bias'], net.norm_groups, net.norm_eps
        )
        if n == 1:
          y = np.maximum(y, 0)
      h = h + y
  return h @ p['conv_out']['kernel'] + p['conv_out']['bias']


def test_the_image_is_the_one_computed_by_hand():
  net = EnlargingResnet(
    magnification=4, features=4, num_blocks=2, norm_groups=2, norm_eps=1e-3
  )
  rng = np.random.default_rng(0)
  lowres = rng.uniform(-1, 1, (2, 3, 2, 3)).astype(np.float32)
  params = net.init(jax.random.key(0), lowres, train=False)['params']
  np.testing.assert_array_equal(
    net.apply({'params': params}, lowres, train=True), np.zeros((2, 12, 8, 3))
  )
  params = jax.tree.map(
    lambda v: (v + rng.normal(size=v.shape)).astype(np.float32), params
  )
  found = net.apply({'params': params}, lowres, train=False)
  plain = jax.tree.map(lambda v: np.asarray(v, np.float64), params)
  for n in range(2):
    expected = by_hand(plain, lowres[n].astype(np.float64), net)
    np.testing.assert_allclose(found[n], expected, rtol=2e-4, atol=2e-3)


def test_computes_in_bfloat16_and_answers_in_float32():
  net = EnlargingResnet(
    magnification=2, features=4, num_blocks=1, norm_groups=2
  )
  half = net.clone(dtype='bfloat16')
  lowres = jnp.linspace(-1, 1, 2 * 48).reshape(2, 4, 4, 3)
  params = net.init(jax.random.key(0), lowres, train=False)['params']
  params['conv_out']['kernel'] += 0.3
  exact = net.apply({'params': params}, lowres, train=False)
  found = half.apply({'params': params}, lowres, train=False)
  assert found.dtype == jnp.float32
  assert 0 < np.abs(found - exact).max() < 0.1
  named = {
    'block_x1_0/conv1/kernel': 'bfloat16',
    'block_x1_0/norm1/scale': 'float32',
    'conv_out/kernel': 'float32',
  }
  for name, dtype in named.items():
    assert half.parameter_dtype(name) == jnp.dtype(dtype)
    assert net.parameter_dtype(name) == jnp.float32


@pytest.mark.parametrize(
  ('field', 'value', 'said'),
  [
    ('features', 0, 'features is 0; it must be from 1'),
    ('num_blocks', -1, 'num_blocks is -1'),
    ('norm_groups', 10**6, 'norm_groups is 1000000'),
    ('norm_eps', 0.0, 'norm_eps is 0.0; it must be above 0'),
    ('dtype', 'float16', "dtype is 'float16'; known are float32, bfloat16"),
  ],
)
def test_a_field_that_no_network_can_have_is_named(field, value, said):
  net = EnlargingResnet(magnification=2, **{field: value})
  with pytest.raises(ValueError, match=said):
    enlarging_resnet.check(net)
