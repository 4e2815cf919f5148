"""Declares and draws what a diffusion loss needs beside the parameters."""

from typing import Any, NamedTuple

import jax

from cdm.diffusion import schedules


class Corruption(NamedTuple):
  """The images of a batch, with the noise and the conditions drawn for them.

  Attributes:
    x_0: [B, H, W, 3], the images or their residuals, which the network draws.
    eps: [B, H, W, 3] standard normal noise.
    u: [B] in [0, 1), stratified; a loss turns it into a noise level.
    conditions: the arguments label [B], upsampled [B, H, W, 3] and level [B] of
      `Diffusion.denoiser`; the last two are None for a base model.
    dropout: its arguments dropout_key, None in evaluation, and examples [B].
  """

  x_0: jax.Array
  eps: jax.Array
  u: jax.Array
  conditions: dict[str, jax.Array | None]
  dropout: dict[str, Any]


def draw_batch(key: jax.Array, n: int) -> dict[str, jax.Array]:
  """Draws the noise and augmentation levels of a whole batch of n images.

  Both are stratified over the whole batch. They are put into the batch, so that
  its parts (microbatches) share one stratification.

  Returns:
    {'u': [n], 'u_lowres': [n]}, uniform numbers in [0, 1).
  """
  u_key, lowres_key = jax.random.split(key)
  return {
    'u': schedules.stratified(u_key, n),
    'u_lowres': schedules.stratified(lowres_key, n),
  }
