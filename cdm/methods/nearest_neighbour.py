"""Finds the training image whose low-res version is the nearest.

  n = argmin_i sum (lowres - downsample(x_i))^2,   the lowest i of equal ones

This is the baseline "NN" of Dahl, Norouzi, Shlens: Pixel Recursive Super
Resolution, arXiv 1702.00783. The sum is over all pixels and colours, and it is
exact: it is a sum of integers that every float32 in between holds. The training
images come in blocks, of which only one is in the memory of the devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Values of a part of a sum. Shifted by 128 they are at most 128 in size, so
# that a sum of so many products is at most 2^24, which float32 holds.
PART = 1024
_NONE = np.iinfo(np.int32).max


class Nearest(NamedTuple):
  """The nearest training image of each query so far.

  Attributes:
    high, low: int32 [B]; the squared distance is 2^16 high + low.
    index: int32 [B], number of the image; -1 if there was none.
  """

  high: jax.Array | np.ndarray
  low: jax.Array | np.ndarray
  index: jax.Array | np.ndarray

  @classmethod
  def none(cls, count: int) -> 'Nearest':
    """Returns what is known before the first block."""
    return cls(
      np.full(count, _NONE, np.int32),
      np.full(count, _NONE, np.int32),
      np.full(count, -1, np.int32),
    )


def nearest(
  before: Nearest,
  queries: jax.Array,
  block: jax.Array,
  there: jax.Array,
  first: jax.Array,
) -> Nearest:
  """Compares queries with a block of training images.

  Blocks must come in the order of the images.

  Args:
    before: what is known of the blocks before.
    queries: uint8 [B, D], low-res images.
    block: uint8 [N, D], shrunk training images.
    there: bool [N], which of them are images.
    first: int32 [], number of the first of them.

  Returns:
    What is known with this block.
  """
  high, low = squared_distances(queries, block)
  high = jnp.where(there[None], high, _NONE)
  least_high = high.min(axis=1)
  low = jnp.where(high == least_high[:, None], low, _NONE)
  least_low = low.min(axis=1)
  # argmax returns the first True.
  place = jnp.argmax(low == least_low[:, None], axis=1).astype(jnp.int32)
  nearer = (least_high < before.high) | (
    (least_high == before.high) & (least_low < before.low)
  )
  nearer &= least_high < _NONE
  return Nearest(
    jnp.where(nearer, least_high, before.high),
    jnp.where(nearer, least_low, before.low),
    jnp.where(nearer, first + place, before.index),
  )


def squared_distances(
  queries: jax.Array, block: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the squared distances of two sets of vectors, exactly.

  Args:
    queries: uint8 [B, D], D up to 2^25.
    block: uint8 [N, D].

  Returns:
    (high, low), int32 [B, N] each, low below 2^16: 2^16 high + low is the sum.
  """

  def add(total, part):
    # [B, PART], [N, PART]: whole numbers from -128 to 127.
    a, b = (x.astype(jnp.float32) - 128.0 for x in part)
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    squares = [(x * x).sum(axis=1).astype(jnp.int32) for x in (a, b)]
    part = squares[0][:, None] + squares[1][None]
    part = part - 2 * products.astype(jnp.int32)  # below 2^26
    high, low = total
    return (high + (part >> 16), low + (part & 0xFFFF)), None

  parts = _parts(queries), _parts(block)
  zeros = jnp.zeros((len(queries), len(block)), jnp.int32)
  (high, low), _ = jax.lax.scan(add, (zeros, zeros), parts)
  return high + (low >> 16), low & 0xFFFF


def _parts(x):
  """Returns uint8 [N, D] in parts, [D / PART, N, PART], filled up with 128."""
  missing = -x.shape[1] % PART
  # What both sets are filled up with adds nothing.
  x = jnp.pad(x, ((0, 0), (0, missing)), constant_values=128)
  return x.reshape(x.shape[0], -1, PART).swapaxes(0, 1)


def distance(found: Nearest, row: int) -> int:
  """Returns the squared distance of one query, a whole number."""
  return (int(found.high[row]) << 16) + int(found.low[row])
