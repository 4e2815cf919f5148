"""Losses of two players, a generator G and a discriminator D, in one gradient.

  L_G = -log s(D(G; stop D))                                     non-saturating
  L_D = -log s(D(x)) - log (1 - s(D(stop G))) + r1/2 |dD(x)/dx|^2

Here s is the sigmoid, x an original and "stop" `jax.lax.stop_gradient`
([Goodfellow et al. 2014] sec. 3; R1: [Mescheder et al. 2018] eq. 9). The
gradient of L_G + L_D by all parameters is therefore that of L_G by those of G,
and that of L_D by those of D: both players move at once, in one step, from the
same parameters. differs: programs of two optimizers move D first and show G the
new one.

The scalars tell whether the game goes on. A discriminator that tells all images
apart has the accuracy 1, and a generator whose images are all alike has no
spread.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Names of the scalars that tell of a collapse.
ACCURACY = 'discriminator_accuracy'
SPREAD, ORIGINAL_SPREAD = 'spread_generated', 'spread_original'


class Losses(NamedTuple):
  """The losses of both players.

  Attributes:
    generator: [B], L_G.
    discriminator: [B], L_D with its penalty.
    scalars: {name: [B]}, for the log line.
  """

  generator: jax.Array
  discriminator: jax.Array
  scalars: dict[str, jax.Array]


def losses(
  discriminate: Callable[[Any, jax.Array], jax.Array],
  params: Any,
  *,
  generated: jax.Array,
  originals: jax.Array,
  r1_weight: float,
) -> Losses:
  """Computes the losses of both players.

  Args:
    discriminate: (parameters of the discriminator, [B, H, W, C]) -> logits [B];
      a logit depends on its own image only.
    params: parameters of the discriminator.
    generated: [B, H, W, C], a function of the generator's parameters.
    originals: [B, H, W, C].
    r1_weight: r1; 0 computes no penalty.

  Returns:
    Losses.
  """
  originals = jax.lax.stop_gradient(originals)
  fooled = discriminate(jax.lax.stop_gradient(params), generated)
  of_generated = discriminate(params, jax.lax.stop_gradient(generated))
  if r1_weight:
    of_original, squares = _with_squared_gradient(
      lambda x: discriminate(params, x), originals
    )
    penalty = 0.5 * r1_weight * squares
  else:
    of_original = discriminate(params, originals)
    penalty = jnp.zeros_like(of_original)
  told = jax.nn.softplus(-of_original) + jax.nn.softplus(of_generated)
  right = (of_original > 0).astype(jnp.float32) + (of_generated < 0)
  scalars = {
    'discriminator_loss': told + penalty,
    'adversarial_loss': jax.nn.softplus(-fooled),
    'r1_penalty': penalty,
    'logit_original': of_original,
    'logit_generated': of_generated,
    ACCURACY: right / 2,
    SPREAD: spread(generated),
    ORIGINAL_SPREAD: spread(originals),
  }
  return Losses(jax.nn.softplus(-fooled), told + penalty, scalars)


def spread(images: jax.Array) -> jax.Array:
  """Estimates the variance of a batch, from neighbours.

  Images 2k and 2k + 1 are compared, the last one of an odd batch with the one
  before. The mean of the results over a batch is without bias, and is the same
  however the batch is shared out, as long as every part is even.

  Args:
    images: [B, H, W, C].

  Returns:
    [B], half the mean squared difference of an image and its neighbour; 0 where
    an image is alone.
  """
  n = images.shape[0]
  neighbour = np.arange(n) ^ 1
  neighbour[neighbour == n] = max(n - 2, 0)
  difference = images - images[neighbour]
  return jax.lax.stop_gradient((difference**2).mean(axis=(1, 2, 3)) / 2)


def _with_squared_gradient(function, images):
  """Returns (function(images) [B], |d function / d images|^2 [B])."""
  value, pull = jax.vjp(function, images)
  (gradient,) = pull(jnp.ones_like(value))
  return value, (gradient.astype(jnp.float32) ** 2).sum(axis=(1, 2, 3))
