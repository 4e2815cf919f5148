"""Draws standard normal noise of an infinite plane, any rectangle by itself.

  noise(y, x) depends on (seed, image, path, y, x) alone

The plane is cut into blocks of `BLOCK` x `BLOCK` pixels. The key of a block is
folded from the key of the plane and the numbers of the block's row and column,
so that rectangles that overlap have the same noise where they do, however a
picture is cut.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 64
# Blocks that one program draws: few enough that a small rectangle is cheap, and
# so many that a large one takes few calls.
AT_ONCE = 16


class NoisePlane(NamedTuple):
  """The noise of one use in one picture.

  Attributes:
    seed: seed of the whole run.
    image: number of the picture among those of the run.
    path: numbers from 0 to 2^32 - 1 that are folded into the key of the
      picture, one after the other; no two uses have the same.
  """

  seed: int
  image: int
  path: tuple[int, ...]

  def rectangle(
    self, top: int, left: int, height: int, width: int, *, channels: int = 3
  ) -> np.ndarray:
    """Returns the noise of a rectangle, float32 [height, width, channels].

    Args:
      top, left: its first pixel, 0 or more.
      height, width: its size.
      channels: C; planes of different C share no noise.
    """
    rows = np.arange(top // BLOCK, -(-(top + height) // BLOCK))
    columns = np.arange(left // BLOCK, -(-(left + width) // BLOCK))
    places = np.stack(np.meshgrid(rows, columns, indexing='ij'), -1)
    places = places.reshape(-1, 2).astype(np.uint32)
    whole = np.empty(
      (len(rows), BLOCK, len(columns), BLOCK, channels), np.float32
    )
    path = np.asarray([self.image, *self.path], np.uint32)
    for first in range(0, len(places), AT_ONCE):
      numbers = np.arange(first, min(first + AT_ONCE, len(places)))
      filled = np.resize(numbers, AT_ONCE)
      drawn = np.asarray(
        _blocks(np.uint32(self.seed), path, places[filled], channels)
      )
      for n, block in zip(numbers, drawn, strict=False):
        whole[n // len(columns), :, n % len(columns)] = block
    whole = whole.reshape(len(rows) * BLOCK, len(columns) * BLOCK, channels)
    y, x = top % BLOCK, left % BLOCK
    return whole[y : y + height, x : x + width]


@functools.partial(jax.jit, static_argnames='channels')
def _blocks(
  seed: np.ndarray, path: np.ndarray, places: np.ndarray, channels: int
) -> jax.Array:
  """Draws blocks: numbers of row and column [n, 2] -> [n, BLOCK, BLOCK, C]."""
  key = jax.random.fold_in(jax.random.key(seed), channels)
  for i in range(len(path)):
    key = jax.random.fold_in(key, path[i])

  def block(place):
    own = jax.random.fold_in(jax.random.fold_in(key, place[0]), place[1])
    return jax.random.normal(own, (BLOCK, BLOCK, channels))

  return jax.vmap(block)(jnp.asarray(places))
