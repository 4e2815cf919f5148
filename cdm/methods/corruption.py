"""Declares what a diffusion loss draws for a batch, beside the parameters."""

from typing import Any, NamedTuple

import jax


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
