"""What every way to learn must offer: pure functions."""

from collections.abc import Callable
from typing import NamedTuple


class Method(NamedTuple):
  """One method, with its network and its data shape already bound.

  Attributes:
    init: `(key) -> params`, a tree of float32 arrays.
    loss: `(params, batch, *, key, train) -> ([B], scalars)`; the batch is
      `{'image': uint8 [B, H, W, 3], 'label': int32 [B]}` and scalars are
      float32, each [] or [B].
    sample: `(params, *, keys, label, lowres, level, stop_logsnr) -> [B, H, W,
      3]` float32 in [-1, 1]; keys is one key per image, so that an image
      depends on its own key only. See the method's own docstring for the rest.
      None of a method that draws nothing.
  """

  init: Callable
  loss: Callable
  sample: Callable | None
