"""The game of two players: its losses, its gradients, its scalars."""

import jax
import jax.numpy as jnp
import numpy as np

from cdm.methods import adversarial

WEIGHT = np.array([0.5, -1.0, 2.0], np.float32)
SHAPE = (4, 2, 2, 3)


def discriminate(params, images):
  """D(x) = w . (mean colour of x): its gradient is w / 4 in every pixel."""
  return images.mean(axis=(1, 2)) @ params['w']


def images(seed):
  return jnp.asarray(
    np.random.default_rng(seed).normal(size=SHAPE), jnp.float32
  )


def game(params, generated, r1_weight=0.7):
  return adversarial.losses(
    discriminate,
    params,
    generated=generated,
    originals=images(1),
    r1_weight=r1_weight,
  )


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_the_losses_are_those_computed_by_hand():
  found = game({'w': jnp.asarray(WEIGHT)}, images(0))
  fake, real = (
    np.asarray(images(seed), float).mean((1, 2)) @ WEIGHT for seed in (0, 1)
  )
  # |dD/dx|^2: four pixels, each with the gradient w / 4.
  penalty = 0.5 * 0.7 * 4 * ((WEIGHT / 4) ** 2).sum()
  np.testing.assert_allclose(found.generator, -np.log(sigmoid(fake)), rtol=1e-5)
  expected = -np.log(sigmoid(real)) - np.log(1 - sigmoid(fake))
  np.testing.assert_allclose(found.discriminator, expected + penalty, rtol=1e-5)
  np.testing.assert_allclose(found.scalars['r1_penalty'], penalty, rtol=1e-5)
  right = ((real > 0) + 0.0 + (fake < 0)) / 2
  np.testing.assert_array_equal(found.scalars[adversarial.ACCURACY], right)


def test_each_player_gets_the_gradient_of_its_own_loss_alone():
  """From the sum of both, and with the penalty in the discriminator's."""
  x, z, w = images(1), images(2), jnp.asarray(WEIGHT)

  def both(params):
    found = game(params['d'], params['g'] * z)
    return (found.generator + found.discriminator).sum()

  together = jax.grad(both)({'d': {'w': w}, 'g': jnp.float32(1.5)})

  def of_generator(g):  # the discriminator is a constant here
    return jax.nn.softplus(-discriminate({'w': w}, g * z)).sum()

  def of_discriminator(w):  # the images are constants here
    fake, real = discriminate({'w': w}, 1.5 * z), discriminate({'w': w}, x)
    penalty = len(x) * 0.5 * 0.7 * 4 * ((w / 4) ** 2).sum()
    told = jax.nn.softplus(-real) + jax.nn.softplus(fake)
    return told.sum() + penalty

  np.testing.assert_allclose(
    together['g'], jax.grad(of_generator)(jnp.float32(1.5)), rtol=1e-5
  )
  np.testing.assert_allclose(
    together['d']['w'], jax.grad(of_discriminator)(w), rtol=1e-5
  )


def test_without_a_penalty_none_is_counted():
  found = game({'w': jnp.asarray(WEIGHT)}, images(0), r1_weight=0.0)
  assert not found.scalars['r1_penalty'].any()


def test_spread_is_the_variance_over_the_batch():
  """Its mean is, without bias: 4,000 images of variance 4."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(3 + 2 * rng.normal(size=(4000, 1, 1, 3)), jnp.float32)
  np.testing.assert_allclose(adversarial.spread(x).mean(), 4.0, rtol=0.05)
  assert not adversarial.spread(jnp.ones((6, 2, 2, 3))).any()


def test_spread_is_the_same_however_a_batch_is_cut_into_even_parts():
  x = jnp.asarray(np.random.default_rng(1).normal(size=(8, 2, 2, 3)))
  whole = adversarial.spread(x)
  parts = [adversarial.spread(x[i : i + 2]) for i in range(0, 8, 2)]
  np.testing.assert_allclose(jnp.concatenate(parts), whole, rtol=1e-6)


def test_the_last_image_of_an_odd_batch_has_a_neighbour_too():
  x = jnp.arange(3.0)[:, None, None, None]
  np.testing.assert_allclose(adversarial.spread(x), [0.5, 0.5, 0.5])
  assert adversarial.spread(x[:1]).tolist() == [0.0]
