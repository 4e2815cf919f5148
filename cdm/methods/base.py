"""Defines the interface of a training method: init, loss and sample."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Method(NamedTuple):
  """One method as pure functions, its network and image size already bound.

  Attributes:
    init: `(key) -> params`, a tree of float32 arrays.
    loss: `(params, batch, *, key, train) -> ([B], scalars)`; the batch is
      `{'image': uint8 [B, H, W, 3], 'label': int32 [B]}` and scalars are
      float32, each [] or [B].
    sample: `(params, *, keys, label, lowres, level, stop_logsnr, tuned) -> [B,
      H, W, 3]` float32 in [-1, 1]; keys is one key per image, so that an image
      depends on its own key only. The other arguments are described where the
      method defines `sample`. `sample` is None if the method draws no images.
    tune: `(stop_logsnr) -> tuned`, a tree of arrays with those settings of the
      sampler that can change without compiling anew; None if there are none.
  """

  init: Callable[[jax.Array], dict]
  loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
  sample: Callable[..., jax.Array] | None
  tune: Callable[..., Any] | None = None
