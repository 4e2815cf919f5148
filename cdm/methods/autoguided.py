"""Draws images with a network that a weaker one guides, [Autoguidance].

  D = D_strong + w (D_strong - D_weak)

The weaker network is smaller or less trained, and knows the same conditions or
fewer. Both are methods of their own, with parameters of their own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from cdm.methods import guided_denoiser
from cdm.methods.base import Method
from cdm.methods.canvas_drawing import CanvasDrawing


class Parameters(NamedTuple):
  """The parameters of two networks.

  Attributes:
    strong: those of the network whose images are drawn.
    weak: those of the network that guides it.
  """

  strong: Any
  weak: Any


def sampling(strong: Method, weak: Method) -> Callable[..., jax.Array]:
  """Returns `Method.sample` of a guided method, which takes `Parameters`.

  Args:
    strong: the method whose images are drawn; its sampler has a weight of
      guidance other than 0.
    weak: the method whose network guides it; its sampler is not used.
  """
  assert strong.sample is not None and weak.guiding is not None
  sample, guiding = strong.sample, weak.guiding

  def guided(params: Parameters, **given):
    bind = functools.partial(guiding, params.weak)
    return sample(guided_denoiser.Guided(params.strong, bind), **given)

  return guided


def on_canvases(strong: Method, weak: Method) -> CanvasDrawing | None:
  """Returns `Method.canvas` of a guided method, which takes `Parameters`.

  Args:
    strong, weak: see `sampling`.
  """
  if strong.canvas is None:
    return None
  assert weak.guiding is not None
  evaluate, guiding = strong.canvas.evaluate, weak.guiding

  def guided(params: Parameters, *given):
    bind = functools.partial(guiding, params.weak)
    return evaluate(guided_denoiser.Guided(params.strong, bind), *given)

  return strong.canvas._replace(evaluate=guided)
