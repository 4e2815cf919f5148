"""The discriminator: sizes, what a logit sees, and the spectral norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.models import discriminator
from cdm.models.discriminator import Discriminator

SIZE = 8


def images(n, channels=3):
  rng = np.random.default_rng(channels)
  return rng.uniform(-1, 1, (n, SIZE, SIZE, channels)).astype(np.float32)


@functools.cache
def made(spectral_norm):
  net = Discriminator(features=4, max_features=8, spectral_norm=spectral_norm)
  params = net.init(jax.random.key(0), images(1), images(1))['params']
  apply = jax.jit(lambda p, x, c: net.apply({'params': p}, x, c))
  return net, params, apply


@pytest.mark.parametrize('size', [8, 32, 48, 64, 80, 96, 128, 256])
def test_there_is_one_logit_for_images_of_many_sizes(size):
  x = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
  net = Discriminator(features=2, max_features=4)
  logits, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
  assert logits.shape == (2,) and logits.dtype == jnp.float32
  last = variables['params']['logit']['kernel'].shape
  assert 3 <= last[0] == last[1] <= discriminator.LARGEST_LAST_SIDE


@pytest.mark.parametrize('spectral_norm', [False, True])
def test_a_logit_sees_all_of_its_own_image_and_condition_alone(spectral_norm):
  _, params, apply = made(spectral_norm)
  x, c = images(2), images(2)[::-1]
  slopes = jax.grad(lambda x, c: apply(params, x, c)[0], argnums=(0, 1))(x, c)
  for slope in slopes:
    assert (jnp.abs(slope[0]).sum(axis=-1) > 0).all()
    assert not slope[1].any()


def test_spectral_norm_is_the_largest_singular_value():
  """Nearly: power iteration comes from below."""
  for seed, shape in enumerate([(48, 8), (128, 64), (30, 40)]):
    matrix = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    exact = np.linalg.svd(matrix, compute_uv=False)[0]
    found = float(discriminator.spectral_norm(jnp.asarray(matrix)))
    assert 0.9 * exact < found <= exact * (1 + 1e-5)
    many = float(discriminator.spectral_norm(jnp.asarray(matrix), 500))
    assert many == pytest.approx(exact, rel=1e-3)


def test_spectral_norm_has_the_gradient_of_the_singular_value():
  """It is u v^T, of the singular vectors."""
  rng = np.random.default_rng(3)
  u, _, v = np.linalg.svd(rng.normal(size=(6, 4)), full_matrices=False)
  matrix = (u * [5.0, 2.0, 1.0, 0.5]) @ v  # well apart
  slope = jax.grad(discriminator.spectral_norm)(
    jnp.asarray(matrix, jnp.float32)
  )
  np.testing.assert_allclose(slope, np.outer(u[:, 0], v[0]), atol=1e-3)


def test_scaled_kernels_change_nothing_under_spectral_norm():
  """But biases, which are not normalised, are zero here."""
  x, c = images(2), images(2)
  for spectral_norm, same in ((True, True), (False, False)):
    _, params, apply = made(spectral_norm)
    tripled = jax.tree.map(lambda p: 3 * p, params)
    equal = np.allclose(apply(tripled, x, c), apply(params, x, c), rtol=1e-4)
    assert equal == same


@pytest.mark.parametrize(
  ('fields', 'size', 'message'),
  [
    ({'features': 0}, 64, 'features is 0; it must be at least 1'),
    ({'dtype': 'half'}, 64, "dtype is 'half'; known are float32"),
    ({}, 100, 'image_size is 100, of which 25 pixels .* such as 128'),
  ],
)
def test_what_no_discriminator_can_have_is_refused(fields, size, message):
  with pytest.raises(ValueError, match=message):
    discriminator.check(Discriminator(**fields), size)
