"""Draws a picture of any size, a canvas, of which the network sees windows.

  x_0(canvas) = sum over windows of weight * x_0(window)
  eps         = (x_t - alpha x_0) / sigma

The weights sum to one at every pixel. Windows are joined after every evaluation
of the network, not at the end: all of them see one x_t, and every step of a
sampler acts on each pixel by itself. So all samplers draw canvases, and there
is one texture where windows overlap, not the mean of two.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import process, sampler_steps
from cdm.diffusion.parameterization import Prediction, eps_from_x_0
from cdm.methods import guided_denoiser


class Views(NamedTuple):
  """What a network knows of the windows that it sees.

  Attributes:
    lowres: [B, s, s, 3], the low-res pictures, augmented to `level`; None for
      a method that is `AnyFactor`.
    upsampled: [B, S, S, 3], windows of the enlarged low-res pictures.
    level: [B], the augmentation level.
    label: int32 [B]; None means the null class.
    damage: float32 [B, K], what a method that is `AnyFactor` is told of the
      low-res pictures; None for other methods.
    known: {name: [B, S, S, C]}, windows of what earlier evaluations predicted
      and are to be told of again; None if nothing is.
  """

  lowres: np.ndarray | jax.Array | None
  upsampled: np.ndarray | jax.Array
  level: np.ndarray | jax.Array
  label: np.ndarray | jax.Array | None
  damage: np.ndarray | jax.Array | None = None
  known: dict[str, Any] | None = None


class Canvas(NamedTuple):
  """Equally large pictures that are drawn.

  Attributes:
    upsampled: [N, H, W, 3], the enlarged low-res pictures.
    start: [N, H, W, 3], the pictures that drawing begins at, see `Start`; None
      to begin at noise.
    start_noise: `() -> [N, H, W, 3]`, standard normal noise.
    step_noise: `j -> [N, H, W, 3]`, that of step j.
    detail: share of what is drawn beyond the mean, from 0 to 1, for a method
      that draws both.
  """

  upsampled: Any
  start: Any
  start_noise: Callable[[], Any]
  step_noise: Callable[[int], Any]
  detail: float = 1.0


# (x_t [N, H, W, 3] or None, logsnr [N] or None, known={name: [N, H, W, C]} or
# None) -> {name: [N, H, W, C]}, what the network predicts, joined from windows.
Evaluate = Callable[..., dict[str, Any]]


class AnyFactor(NamedTuple):
  """What a method states that enlarges by any factor, in windows of any size.

  It is told of each low-res picture the K numbers of
  `data.low_res_inputs.LEVELS`, the factor among them.

  Attributes:
    unit: windows begin and end at multiples of it, in pixels of the result.
    reach: pixels of the result that an evaluation looks at around squares of
      `unit` pixels.
    most: the largest factor of one pass.
  """

  unit: int
  reach: int
  most: float


class CanvasDrawing(NamedTuple):
  """How a method draws canvases.

  Attributes:
    evaluate: `(params, Views, x_t, logsnr, tuned) -> {name: [B, S, S, 3]}`, an
      evaluation of the network, which is compiled. 'x_0' is among the names;
      x_t [B, S, S, 3] and logsnr [B] are None if the method has none.
    draw: `(Evaluate, Canvas, tuned) -> [N, H, W, 3]`, what runs on the host.
    any_factor: what it states if it enlarges by any factor, in windows of any
      size; None if it magnifies images of one size.
    draws_mean: whether an evaluation comes before the sampler's, which predicts
      the mean that `Canvas.detail` is added to.
  """

  evaluate: Callable[..., dict[str, jax.Array]]
  draw: Callable[..., Any]
  any_factor: AnyFactor | None = None
  draws_mean: bool = False


def of_prediction(
  predict: Callable[[Any, Views], jax.Array],
  any_factor: AnyFactor | None = None,
) -> CanvasDrawing:
  """Returns how a method draws canvases that predicts them in one evaluation.

  Args:
    predict: `(params, Views) -> [B, S, S, 3]`.
    any_factor: see `CanvasDrawing`.
  """

  def evaluate(params, views, x_t, logsnr, tuned):
    del x_t, logsnr, tuned
    return {'x_0': predict(params, views)}

  def draw(evaluate, canvas, tuned):
    del canvas, tuned
    return evaluate(None, None)['x_0']

  return CanvasDrawing(evaluate, draw, any_factor)


def of_diffusion(model: Any) -> CanvasDrawing | None:
  """Returns how a `diffusion.Diffusion` draws canvases; None for a base model.

  Dynamic thresholds and rescaled guidance take their statistics over a window.
  """
  if model.lowres is None:
    return None
  return CanvasDrawing(
    functools.partial(_evaluate, model), functools.partial(_draw, model)
  )


def _evaluate(model, params, views, x_t, logsnr, tuned):
  """Predicts x_0 of windows, see `CanvasDrawing.evaluate`."""
  guided_denoiser.check_label(model.net, views.label)
  conditions = guided_denoiser.Conditions(
    views.label, views.upsampled, views.level
  )
  denoise = guided_denoiser.drawing(
    model, params, conditions, lowres=views.lowres, tuned=tuned
  )
  found = denoise(x_t, logsnr)
  named = {'x_0': found.x_0}
  return named if found.var is None else {**named, 'var': found.var}


def _draw(model, evaluate, canvas, tuned):
  """Runs the sampler of a model on a canvas, see `CanvasDrawing.draw`."""

  def denoise(x_t, logsnr):
    return prediction(evaluate(x_t, logsnr), x_t, logsnr)

  x = run(model, denoise, canvas, tuned, over=canvas.upsampled)
  return model.image_of(x, canvas.upsampled)


def prediction(found: dict[str, Any], x_t: Any, logsnr: Any) -> Prediction:
  """Returns what a network predicts of a canvas, joined from windows.

  Args:
    found: what `Evaluate` returns.
    x_t: [N, H, W, 3].
    logsnr: [N].
  """
  # x_0 alone is joined, and eps follows from it. The digits that eps loses
  # at low noise are lost below those of x_t, to which it is added there.
  eps = eps_from_x_0(x_t, found['x_0'], logsnr=logsnr)
  return Prediction(found['x_0'], eps, found.get('var'))


def run(
  model: Any, denoise: Any, canvas: Canvas, tuned: Any, *, over: Any
) -> Any:
  """Runs the sampler of a model on a canvas.

  Args:
    model: a `diffusion.Diffusion`.
    denoise: its denoiser of a whole canvas.
    canvas: what is drawn.
    tuned: see `CanvasDrawing`.
    over: [N, H, W, 3], what a residual is taken over.

  Returns:
    [N, H, W, 3], before `Diffusion.image_of`.
  """
  x_T = jnp.asarray(canvas.start_noise())
  if canvas.start is not None:
    logsnr = jnp.full(x_T.shape[0], tuned.start_logsnr, x_T.dtype)
    start = model.residual(jnp.asarray(canvas.start), over)
    x_T = process.q_sample(start, x_T, logsnr=logsnr)
  with sampler_steps.on_host():
    return model.sampling.run(
      denoise, x_T, logsnrs=tuned.steps, noise=canvas.step_noise
    )
