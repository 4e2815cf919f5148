"""Defines the interface of a training method: init, loss and sample."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from cdm.diffusion.parameterization import Denoiser
from cdm.methods.canvas_drawing import CanvasDrawing


class Method(NamedTuple):
  """One method as pure functions, its network and image size already bound.

  Attributes:
    init: `(key) -> params`, a tree of float32 arrays.
    loss: `(params, batch, *, key, train) -> ([B], scalars)`; the batch is
      `{'image': uint8 [B, H, W, 3], 'label': int32 [B]}` and scalars are
      float32, each [] or [B]. With `init_frozen` it takes a keyword `frozen`
      too, the parameters that are used and not trained.
    sample: `(params, *, keys, label, lowres, level, stop_logsnr, tuned) -> [B,
      H, W, 3]` float32 in [-1, 1]; keys is one key per image, so that an image
      depends on its own key only. The other arguments are described where the
      method defines `sample`. `sample` is None if the method draws no images. A
      diffusion model also takes `start`, an image to begin at.
    tune: `(stop_logsnr) -> tuned`, a tree of arrays with those settings of the
      sampler that can change without compiling anew; None if there are none.
      That of a diffusion model also takes the log-SNR of `start`.
    draw: `(key, B) -> {name: [B]}`, the values that must be drawn for a whole
      batch before it is split into microbatches, see `training.step`; None if
      there are none.
    prepare: `(params) -> params`, what is computed from trained parameters once
      before images are drawn; `sample` is given its result. None leaves the
      parameters as they are.
    accumulate: `(params, batch) -> (params, {name: []})`, for a method that is
      fitted without gradients: the next parameters, and float32 scalars with
      'loss' among them. The batch is the whole one. `loss` is then None.
    is_found: `(images, lowres) -> bool [B]`, whether a search found an image
      with the pixels of the low-res image, to the tolerance of the method; both
      float32 in [-1, 1]. None if the method does not search.
    guiding: `(params, guided_denoiser.Conditions) -> Denoiser`, the network by
      itself, for the sampler of another one, which it guides; None if the
      method has no denoiser.
    init_frozen: `(key) -> frozen`, parameters such as those of a teacher, of
      which only the shapes are used: a run reads them when it begins. None if
      there are none.
    project: `(params) -> params`, what trained parameters are replaced by after
      every update, such as normalised ones; None leaves them as they are.
  """

  init: Callable[[jax.Array], dict]
  loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] | None
  sample: Callable[..., jax.Array] | None
  tune: Callable[..., Any] | None = None
  draw: Callable[[jax.Array, int], dict[str, jax.Array]] | None = None
  prepare: Callable[[Any], Any] | None = None
  accumulate: Callable[..., tuple[Any, dict[str, jax.Array]]] | None = None
  is_found: Callable[[jax.Array, jax.Array], jax.Array] | None = None
  guiding: Callable[..., Denoiser] | None = None
  init_frozen: Callable[[jax.Array], Any] | None = None
  canvas: CanvasDrawing | None = None
  project: Callable[[Any], Any] | None = None
