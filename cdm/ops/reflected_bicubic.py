"""Shrinks images by a bicubic filter that reflects them at their borders.

  y = R x R^T     R [h, H], every row sums to one

PULSE compares low-res images with this filter, [PULSE]'s code. Inside an image
it is the bicubic filter of `resize.resize`, which renormalises its weights at
the border instead.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cdm.ops.resize import KERNELS


def shrink(x: jax.Array, size: int) -> jax.Array:
  """Shrinks images by a whole factor, in float: nothing is clipped.

  Args:
    x: float [N, H, H, C].
    size: h = w of the result; H / h must be even, because the filter would be
      off by half a pixel otherwise.

  Returns:
    [N, h, h, C].

  Raises:
    ValueError: H / h is not even.
  """
  weights = jnp.asarray(shrink_weights(x.shape[1], size), x.dtype)
  x = jnp.einsum(
    'ij,njkc->nikc', weights, x, precision=jax.lax.Precision.HIGHEST
  )
  return jnp.einsum(
    'ij,nkjc->nkic', weights, x, precision=jax.lax.Precision.HIGHEST
  )


@functools.lru_cache(maxsize=16)
def shrink_weights(length: int, size: int) -> np.ndarray:
  """Returns the matrix of `shrink` along one axis, float64 [size, length]."""
  factor = length // size
  if factor * size != length or factor % 2:
    raise ValueError(
      f'An image of {length} pixels cannot be shrunk to {size} by a filter for '
      'even factors; use a size that divides it by an even number.'
    )
  taps = np.arange(4 * factor)
  kernel = KERNELS['bicubic'](np.abs(taps - 2 * factor + 0.5) / factor)
  kernel /= kernel.sum()
  padding = 3 * factor // 2
  period = 2 * (length - 1)
  weights = np.zeros((size, length))
  for row in range(size):
    source = np.abs(row * factor + taps - padding) % period
    np.add.at(weights[row], np.minimum(source, period - source), kernel)
  weights.setflags(write=False)  # the cache shares it among all callers
  return weights
