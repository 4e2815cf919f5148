"""Stages that show what a network is given of an array, enlarged."""

import jax.numpy as jnp
from support import canvas_stages

from cdm.methods.canvas_drawing import CanvasDrawing
from cdm.sampling import upscaler as sampling_upscaler


def enlarging(channels=3, factor=2, **fields):
  """-> `Upscaler` whose network is bicubic enlargement, of any channels."""

  def evaluate(params, views, x_t, logsnr, tuned):
    return {'x_0': views.upsampled}

  def draw(evaluate, canvas, tuned):
    return evaluate(None, None)['x_0']

  stage = canvas_stages.stage(size=16, margin=2, factor=factor)

  def sample(params, *, lowres, **given):  # is asked for its memory
    return jnp.repeat(jnp.repeat(lowres, factor, axis=1), factor, axis=2)

  stage = stage._replace(
    sample=sample,
    canvas=CanvasDrawing(evaluate, draw),
    tune=None,
    channels=channels,
    **fields,
  )
  return sampling_upscaler.stage_upscaler(stage, None, batch_size=4)
