"""Weighs pixels by the census transform: which neighbours are darker than they.

Two weights of [RAISR] sec. IV, for blending an image with a filtered version.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# The 8 neighbours of a pixel in the order of the ring that they form.
RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


def census(x: jax.Array) -> jax.Array:
  """Returns which neighbours of a pixel are darker than it.

  Args:
    x: [B, H, W]; beyond its border stands its nearest pixel.

  Returns:
    bool [8, B, H, W], in the order of `RING`.
  """
  height, width = x.shape[1:]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode='edge')
  return jnp.stack(
    [padded[:, r : r + height, c : c + width] < x for r, c in RING]
  )


def unchanged_weight(before: jax.Array, after: jax.Array) -> jax.Array:
  """Returns the share of census bits that a filter left as they were.

  Args:
    before, after: [B, H, W].

  Returns:
    float32 [B, H, W] in [0, 1], the weight of `after`.
  """
  same = census(before) == census(after)
  return same.astype(jnp.float32).mean(axis=0)


def structure_weight(x: jax.Array) -> jax.Array:
  """Returns how much of a structure the neighbours of a pixel form.

  It is the size of the smallest run of equal bits on the ring of the census,
  0 if all are equal: 4 at a straight edge, 1 where they are random. differs:
  the weight is the size divided by 4; that of [RAISR] could not be read.

  Args:
    x: [B, H, W].

  Returns:
    float32 [B, H, W] in [0, 1], the weight of what is filtered.
  """
  powers = jnp.asarray(2 ** np.arange(8), jnp.int32)
  code = jnp.tensordot(powers, census(x).astype(jnp.int32), axes=1)
  return jnp.asarray(_smallest_runs() / 4.0, jnp.float32)[code]


@functools.cache
def _smallest_runs() -> np.ndarray:
  """Returns int [256], the length of the smallest run of each ring of bits."""
  bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
  lengths = np.zeros(256, int)
  for code, ring in enumerate(bits):
    starts = np.flatnonzero(ring != np.roll(ring, 1))
    if len(starts):
      lengths[code] = np.diff(np.append(starts, starts[0] + 8)).min()
  return lengths
