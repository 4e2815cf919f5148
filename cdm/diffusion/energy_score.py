"""Scores draws by how far they are from an image and from each other.

  rho(a, b) = |a - b|^beta, of patches of d values divided by d^(beta / 2)
  L = mean over patches of (rho(x, g) + rho(x, g')) / 2 - rho(g, g') / 2

The energy score ([Gneiting and Raftery 2007] eq. 22), estimated without bias
from two independent draws g and g' for one image x. With 0 < beta < 2 it is
strictly proper: among all distributions of g, L is least on average for that of
x, and for no other ([De Bortoli et al. 2025] use it for the steps of a
diffusion model). Of patches it is that of the distribution of each patch; the
whole image is a patch too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

WHOLE = 0  # the patch size that stands for the whole image


class Score(NamedTuple):
  """The score of two draws, one value per example.

  Attributes:
    loss: [B] float32, L.
    distance: [B], (rho(x, g) + rho(x, g')) / 2.
    spread: [B], rho(g, g'). On average the distance is as large if the draws
      are distributed as the image is.
  """

  loss: jax.Array
  distance: jax.Array
  spread: jax.Array


def score(
  first: jax.Array,
  second: jax.Array,
  image: jax.Array,
  *,
  exponent: float,
  patch_sizes: Sequence[int],
) -> Score:
  """Returns the energy score of two draws, averaged over sizes of patches.

  Args:
    first, second: [B, H, W, C], independent draws.
    image: [B, H, W, C], the original.
    exponent: beta, above 0 and below 2.
    patch_sizes: sides of square patches that tile the image; 0 is the whole.

  Raises:
    ValueError: an option is out of range, or patches do not tile the image.
  """
  check(exponent, patch_sizes, image.shape[1])

  def rho(a, b):
    return sum(_distances(a - b, size, exponent) for size in patch_sizes) / len(
      patch_sizes
    )

  distance = (rho(first, image) + rho(second, image)) / 2
  spread = rho(first, second)
  return Score(distance - spread / 2, distance, spread)


def check(exponent: float, patch_sizes: Sequence[int], side: int) -> None:
  """Raises ValueError, naming the option, unless images can be scored so.

  Args:
    exponent, patch_sizes: see `score`.
    side: H = W of the images.
  """
  if not 0 < exponent < 2:
    raise ValueError(
      f'exponent is {exponent}; use a number above 0 and below 2, such as 1: '
      'with 2 and more, draws without any spread may score best.'
    )
  if not patch_sizes or len(set(patch_sizes)) < len(patch_sizes):
    raise ValueError(
      f'patch_sizes is {tuple(patch_sizes)}; give one size or several '
      f'different ones, such as (4, 16, {WHOLE}).'
    )
  for size in patch_sizes:
    if size != WHOLE and (size < 1 or side % size):
      raise ValueError(
        f'patch_sizes has {size}, but patches tile images of {side} pixels; '
        f'give divisors of {side}, or {WHOLE} for the whole image.'
      )


def _distances(difference, size, exponent):
  """Returns the mean of rho over the patches of a size: [B, H, W, C] -> [B]."""
  n, height, width, channels = difference.shape
  size = size or height
  squares = jnp.square(difference.astype(jnp.float32)).reshape(
    n, height // size, size, width // size, size, channels
  )
  squares = squares.mean(axis=(2, 4, 5))  # [B, H / size, W / size]
  # A root has no gradient at 0, where the distance is least: there it is 0.
  # What is no number stays none.
  apart = squares != 0
  values = jnp.where(apart, squares, 1.0) ** (exponent / 2)
  return jnp.where(apart, values, 0.0).mean(axis=(1, 2))
