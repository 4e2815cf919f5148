"""Enlarges low-res images by a fixed filter: nearest and bicubic.

  image = clip(resize(lowres))

These methods have no parameters and are not trained. Every other method is
compared with them.
"""

import jax
import jax.numpy as jnp

from cdm.methods.base import Method
from cdm.ops import resize

FILTERS = ('nearest', 'bicubic')
# Low-res pixels on each side of a pixel on which its image depends.
MARGINS = {'nearest': 0, 'bicubic': 2}


def interpolation(filter: str, *, factor: int) -> Method:
  """Makes the method of a filter and a magnification.

  Args:
    filter: one of `FILTERS`, a method of `resize.resize`.
    factor: the magnification.
  """
  assert filter in FILTERS, filter

  def init(key: jax.Array) -> dict:
    del key  # There are no parameters.
    return {}

  def sample(params: dict, *, lowres: jax.Array, **ignored) -> jax.Array:
    """Enlarges images [B, h, w, 3]; all else is without effect."""
    del params, ignored
    size = tuple(factor * n for n in lowres.shape[1:3])
    return jnp.clip(resize.resize(lowres, size, method=filter), -1.0, 1.0)

  return Method(init=init, loss=None, sample=sample)
