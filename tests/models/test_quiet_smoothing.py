"""What is added is smoothed where nobody could see it, and nowhere else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.models import quiet_smoothing
from cdm.models.unshuffled_resnet import UnshuffledResnet

LEVEL = quiet_smoothing.GREY_LEVEL


def weave(amplitude, patch_size, side=48):
  """-> [1, side, side, 3], what squares repeat, of so many grey levels."""
  rng = np.random.default_rng(0)
  pattern = rng.normal(size=(patch_size, patch_size, 3))
  pattern -= pattern.mean(axis=(0, 1))
  tiled = np.tile(pattern, (1, side // patch_size, side // patch_size, 1))
  return jnp.asarray(amplitude * LEVEL * tiled, jnp.float32)


@pytest.mark.parametrize('patch_size', [2, 3, 4, 8])
def test_a_quiet_pattern_of_squares_vanishes(patch_size):
  kernel = quiet_smoothing.kernel(patch_size)
  assert len(kernel) % 2 and kernel.sum() == pytest.approx(1)
  # Its response at 1/p cycles per pixel is 0.
  turns = np.exp(2j * np.pi * np.arange(len(kernel)) / patch_size)
  assert abs(turns @ kernel) < 1e-12
  given = weave(0.02, patch_size)
  found = quiet_smoothing.smoothed(given, patch_size, 0.5)
  inside = np.s_[:, 12:-12, 12:-12]
  assert np.abs(found[inside]).max() < 1e-3 * np.abs(given).max()


def test_what_can_be_seen_stays():
  given = weave(20.0, 4)
  found = quiet_smoothing.smoothed(given, 4, 0.5)
  assert np.abs(found - given).max() < 1e-4 * np.abs(given).max()
  # A smooth change stays, however quiet it is.
  slope = jnp.linspace(0, 0.1 * LEVEL, 48)[None, :, None, None]
  slope = jnp.broadcast_to(slope, (1, 48, 48, 3))
  found = quiet_smoothing.smoothed(slope, 4, 0.5)
  np.testing.assert_allclose(found[:, 8:-8], slope[:, 8:-8], atol=1e-8)


def test_a_network_looks_one_square_further():
  assert quiet_smoothing.reach(4) == 4
  net = UnshuffledResnet(features=6, num_blocks=1, embedding_features=3)
  quiet = dataclasses.replace(net, quiet_level=8.0)
  assert (net.margin, quiet.margin) == (16, 20)
  x = np.random.default_rng(1).uniform(-1, 1, (1, 96, 96, 3))
  x, levels = jnp.asarray(x, jnp.float32), jnp.zeros((1, 4))
  params = net.init(jax.random.key(0), x, levels, train=False)['params']
  rng = np.random.default_rng(2)
  params = jax.tree.map(
    lambda p: jnp.asarray(0.1 * rng.standard_normal(p.shape), p.dtype), params
  )

  def square(x):
    image = quiet.apply({'params': params}, x, levels, train=False).image
    return image[:, 48:52, 48:52]

  reached = jax.grad(lambda x: jnp.sum(jnp.sin(30 * square(x))))(x)
  rows = np.flatnonzero(np.abs(reached).sum(axis=(0, 2, 3)))
  assert 48 - 20 <= rows[0] < 48 - 16 and 51 + 16 < rows[-1] <= 51 + 20
  plain = net.apply({'params': params}, x, levels, train=False).image
  whole = quiet.apply({'params': params}, x, levels, train=False).image
  assert 0 < np.abs(whole - plain).max()
  tile = quiet.apply({'params': params}, x[:, 20:80], levels, train=False).image
  np.testing.assert_allclose(tile[:, 20:40], whole[:, 40:60], atol=1e-5)
