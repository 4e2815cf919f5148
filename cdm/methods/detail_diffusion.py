"""Trains and samples a diffusion model of what a mean leaves out.

  u            = upsample(z),   z a degraded low-res image of any size up to H
  mean, f      = A(u, levels)
  r            = (x_0 - mean) / residual_scale
  r_t          = alpha_t r + sigma_t eps
  B(r_t, t, mean, u, f, levels)  predicts r
  image        = mean + w residual_scale r,   w from 0 to 1

A is the network of a finished `degraded_regression`, from whose run this one
starts (config.train.init_from). It is not trained further. So the sampler draws
only what the low-res image does not decide, and few steps are enough: A is
evaluated once for an image, and B once for each step. w blends from the mean,
which has the least squared error, to a draw, which looks like a photograph.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from cdm.methods import (
  canvas_drawing,
  degraded_inputs,
  guided_denoiser,
  parameter_cast,
)
from cdm.methods.canvas_drawing import CanvasDrawing
from cdm.methods.diffusion import Diffusion


@dataclasses.dataclass(frozen=True, eq=False)
class DetailDiffusion(Diffusion):
  """A `Diffusion` of the residual over a mean that its network computes.

  Its `net` is a `models.detail_network.DetailNetwork`. Its denoiser is given
  what `net.joined` returns as `upsampled`, and as `level` what degraded the
  low-res images, [B, K].

  Attributes:
    num_levels: K, the numbers of `data.low_res_inputs.LEVELS`.

  Raises:
    ValueError: options contradict each other.
  """

  num_levels: int = 0

  def __post_init__(self):
    degraded_inputs.check(self.lowres, 'diffusion')
    super().__post_init__()
    if self.objective.residual_scale is None:
      raise ValueError(
        'method.residual_scale is None; it must be the standard deviation of '
        'what the mean leaves out, such as 0.08.'
      )
    for key, wanted in (('project_lowres', False), ('guide', '')):
      value = getattr(self.sampling, key)
      if value != wanted:
        raise ValueError(
          f'sampler.{key} is {value!r}, which the details of a mean cannot be '
          f'drawn with; use --config.sampler.{key}={wanted}.'
        )
    if self.image_size % self.net.unit:
      raise ValueError(
        f'pipeline.image_size is {self.image_size}; the network takes whole '
        f'squares of {self.net.unit} pixels.'
      )

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of both networks, see `Method.init`."""
    x = jnp.zeros((1, *self._shape))
    levels = jnp.zeros((1, self.num_levels))
    return self.net.init(key, x, levels, method='both')['params']

  def trained_condition(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    x_0: jax.Array,
    *,
    key: jax.Array,
    examples: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns what A knows of the images of a batch, and their levels."""
    del key, examples  # The data degrade the low-res images.
    assert self.lowres is not None
    enlarged, levels = degraded_inputs.of_batch(
      batch, x_0, self.lowres, self.num_levels
    )
    # The mean is not trained.
    known = jax.lax.stop_gradient(self.known(params, enlarged, levels))
    return self._told(known, enlarged), levels

  def drawn_condition(
    self,
    params: Any,
    lowres: jax.Array | None,
    level: jax.Array | None,
    n: int,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns what A knows of clean low-res images, and their levels."""
    del level, n
    assert self.lowres is not None and lowres is not None
    enlarged, levels = degraded_inputs.of_clean(
      lowres, self.image_size, self.lowres, self.num_levels
    )
    params = parameter_cast.cast(params, self.net.parameter_dtype)
    known = self.known(params, enlarged, levels)
    return self._told(known, enlarged), levels

  def known(self, params: dict, enlarged: jax.Array, levels: jax.Array) -> Any:
    """Evaluates A.

    Args:
      params: parameters of both networks.
      enlarged: [B, H, W, 3], u.
      levels: [B, K].

    Returns:
      `detail_network.Known`.
    """
    found = self.net.apply({'params': params}, enlarged, levels, method='known')
    return found._replace(mean=jnp.clip(found.mean, -1.0, 1.0))

  def _told(self, known, enlarged):
    return self.net.joined(known.mean, enlarged, known.features)

  def residual(self, x_0: Any, upsampled: Any) -> jax.Array:
    """Turns an image into what the network draws."""
    return (x_0 - upsampled[..., :3]) / self.objective.residual_scale

  def image_of(self, x: Any, upsampled: Any) -> Any:
    """Returns the image of what the network has drawn."""
    return upsampled[..., :3] + self.objective.residual_scale * x

  def _conditions(self, *, label, upsampled, level) -> dict:
    del label
    return {'known': upsampled, 'damage': level}

  @property
  def canvas(self) -> CanvasDrawing:
    """How canvases are drawn, see `Method.canvas`."""
    assert self.lowres is not None
    return CanvasDrawing(
      self._evaluate,
      self._draw,
      any_factor=canvas_drawing.AnyFactor(
        unit=self.net.unit,
        reach=self.reach,
        most=self.image_size / self.lowres.size,
      ),
      draws_mean=True,
    )

  @property
  def reach(self) -> int:
    """Pixels around a square of `net.unit` that an evaluation looks at.

    Of A or of B: windows are joined in between.
    """
    return max(self.net.margin, self.net.mean.margin)

  def _evaluate(self, params, views, x_t, logsnr, tuned):
    """Evaluates A, or B on what A knows; see `CanvasDrawing.evaluate`."""
    params = parameter_cast.cast(params, self.net.parameter_dtype)
    if views.known is None:
      found = self.known(params, views.upsampled, views.damage)
      return {'x_0': found.mean, 'features': found.features}
    told = self.net.joined(
      views.known['x_0'], views.upsampled, views.known['features']
    )
    conditions = guided_denoiser.Conditions(None, told, views.damage)
    denoise = guided_denoiser.drawing(
      self, params, conditions, lowres=None, tuned=tuned
    )
    return {'x_0': denoise(x_t, logsnr).x_0}

  def _draw(self, evaluate, canvas, tuned):
    """Draws the mean, and details over it; see `CanvasDrawing.draw`."""
    known = evaluate(None, None)
    mean = known['x_0']
    if not canvas.detail:
      return mean

    def denoise(x_t, logsnr):
      found = evaluate(x_t, logsnr, known)
      return canvas_drawing.prediction(found, x_t, logsnr)

    # Details over the mean itself begin at the enlarged picture, if at all.
    x = canvas_drawing.run(self, denoise, canvas, tuned, over=mean)
    return mean + canvas.detail * self.objective.residual_scale * x
