"""Trains a network to draw in one evaluation, without a teacher.

  g = the x_0 that the network predicts of noise z alone, given the conditions
  L = energy score of the image x and two draws g, g' of it

See `diffusion.energy_score`. The network is one of a diffusion model at the
noisiest level of its schedule, which it is told; it is drawn by DDIM in one
step, and so is an ordinary stage. It may start from the weights of a diffusion
model (config.train.init_from).

[De Bortoli et al. 2025] score predictions at every noise level, and draw in
several steps; this is their rule at the first level alone.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cdm.diffusion import energy_score, grids
from cdm.methods import few_steps
from cdm.methods.base import Method
from cdm.methods.corruption import draw_batch
from cdm.methods.diffusion import Diffusion
from cdm.ops.keys import example_keys, normals


class ScoringOptions(NamedTuple):
  """How draws are scored; keys of the `method` section of a config.

  Attributes:
    exponent: beta of `energy_score`.
    patch_sizes: sides of the patches, whose scores are averaged; 0 is the whole
      image.
  """

  exponent: float = 1.0
  patch_sizes: tuple[int, ...] = (energy_score.WHOLE,)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoringRule:
  """A network, and how its draws are scored.

  Attributes:
    drawn: the network and its sampler.
    options: how they are scored.

  Raises:
    ValueError: an option cannot be used.
  """

  drawn: Diffusion
  options: ScoringOptions

  def __post_init__(self):
    few_steps.check_objective(self.drawn.objective, 'scoring_rule')
    energy_score.check(*self.options, self.drawn.image_size)

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the energy score of two draws for each example.

    Args:
      params: parameters of the network.
      batch, key, train: see `Diffusion.loss`.

    Returns:
      ([B], {'distance': [B], 'spread': [B]}), see `energy_score.Score`.

    Raises:
      ValueError: the sampler takes other steps.
    """
    grid = grids.trailing(self.drawn.schedule, num_steps=1)
    few_steps.check_sampler(self.drawn.sampling, grid)
    key, noise_key, dropout_key = jax.random.split(key, 3)
    given = self.drawn.corruption(params, batch, key=key, train=train)
    examples = given.dropout['examples']
    other = normals(example_keys(noise_key, examples), given.eps.shape[1:])
    other_dropout = dict(given.dropout)
    if train:
      other_dropout['dropout_key'] = dropout_key
    logsnr = jnp.full(given.eps.shape[0], grid[0], given.eps.dtype)

    def draw(noise, dropout):
      denoise = self.drawn.denoiser(params, **given.conditions, **dropout)
      return denoise(noise, logsnr).x_0

    found = energy_score.score(
      draw(given.eps, given.dropout),
      draw(other, other_dropout),
      given.x_0,
      **self.options._asdict(),
    )
    return found.loss, {'distance': found.distance, 'spread': found.spread}


def scoring_rule(drawn: Diffusion, options: ScoringOptions) -> Method:
  """Returns the `Method` of a `ScoringRule` with these fields."""
  bound = ScoringRule(drawn, options)
  return Method(
    drawn.init,
    bound.loss,
    drawn.sample,
    tune=drawn.tune,
    draw=draw_batch,
    canvas=drawn.canvas,
  )
