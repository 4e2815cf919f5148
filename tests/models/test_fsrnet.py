"""FSRNet: where it starts, what an image depends on, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.distributed.partitioning import parameter_name
from cdm.models import fsrnet

SIZE = 8
SMALL = dict(
  features=8,
  prior_features=8,
  coarse_blocks=1,
  encoder_blocks=1,
  decoder_blocks=1,
  hourglasses=1,
  hourglass_depth=1,
  norm_groups=2,
)


def images(n, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (n, SIZE, SIZE, 3)).astype(np.float32)


@functools.cache
def made(**fields):
  """-> (network, new parameters, jitted apply)."""
  net = fsrnet.FsrNet(**SMALL, **fields)
  params = jax.jit(net.init)(jax.random.key(0), images(1))['params']
  return net, params, jax.jit(lambda p, x: net.apply({'params': p}, x))


@functools.cache
def moved():
  """-> parameters off the zeros that a network begins with."""
  leaves, tree = jax.tree.flatten(made()[1])
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return tree.unflatten(
    x + 0.2 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  )


def test_a_new_network_returns_the_enlarged_image():
  _, params, apply = made()
  x = images(2)
  output = apply(params, x)
  np.testing.assert_array_equal(output.coarse, x)
  np.testing.assert_array_equal(output.image, x)
  assert output.maps is None and 'maps' not in params


def test_an_image_does_not_depend_on_the_others_of_its_batch():
  x = images(3)
  _, _, apply = made()
  whole = apply(moved(), x).image
  assert float(jnp.abs(whole - x).max()) > 1e-2
  other = apply(moved(), np.concatenate([x[:1], images(2, seed=1)])).image
  np.testing.assert_allclose(other[0], whole[0], atol=1e-6)


def test_the_fine_image_changes_with_every_branch():
  """Coarse network, encoder, prior network and decoder all reach it."""
  _, _, apply = made()
  gradient = jax.jit(
    jax.grad(lambda p: (apply(p, images(2)).image ** 2).mean())
  )(moved())
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert (leaf != 0).any(), jax.tree_util.keystr(path)
  assert set(gradient) == {
    *('coarse', 'encoder', 'prior', 'join', 'double', 'decoder')
  }


def test_maps_of_a_face_are_half_the_size():
  net = fsrnet.FsrNet(**SMALL, num_maps=5)
  x = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), np.float32)
  shapes, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
  assert shapes.maps.shape == (2, SIZE // 2, SIZE // 2, 5)
  assert variables['params']['maps']['kernel'].shape == (1, 1, 8, 5)


def test_the_network_of_the_paper_has_3_12_and_3_blocks_and_2_hourglasses():
  x = jax.ShapeDtypeStruct((1, 128, 128, 3), np.float32)
  params = jax.eval_shape(fsrnet.FsrNet().init, jax.random.key(0), x)['params']
  counts = {
    part: sum(
      name.startswith(('block_', 'hourglass_')) for name in params[part]
    )
    for part in ('coarse', 'encoder', 'prior', 'decoder')
  }
  assert counts == {'coarse': 3, 'encoder': 12, 'prior': 2, 'decoder': 3}
  assert params['encoder']['block_0']['conv1']['kernel'].shape[-1] == 64


def test_only_normalisations_are_used_in_float32():
  """Else a split parameter would travel in another dtype than is used."""
  net, params, _ = made(dtype='bfloat16')
  found = {
    parameter_name(path): net.parameter_dtype(parameter_name(path))
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  }
  assert found['encoder/block_0/norm1/scale'] == jnp.float32
  assert found['encoder/block_0/conv1/kernel'] == jnp.bfloat16
  assert found['double/bias'] == jnp.bfloat16


@pytest.mark.parametrize(
  ('fields', 'size', 'message'),
  [
    ({'features': 0}, 8, 'features is 0; it must be at least 1'),
    ({'encoder_blocks': -1}, 8, 'encoder_blocks is -1; it must be at least 0'),
    ({'dtype': 'float16'}, 8, "dtype is 'float16'; known are float32"),
    ({'hourglass_depth': 3}, 24, 'images of 24 pixels .* no multiple of 16'),
  ],
)
def test_what_no_network_can_have_is_refused(fields, size, message):
  with pytest.raises(ValueError, match=message):
    fsrnet.check(fsrnet.FsrNet(**{**SMALL, **fields}), size)
