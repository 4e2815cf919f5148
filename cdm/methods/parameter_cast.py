"""Casts parameters to the dtype of computation once, before a loop uses them.

A layer that computes in bfloat16 casts its float32 parameters whenever it is
called. In a sampler's loop that would be once per step, and every step would
read four bytes of a parameter instead of two. Not every compiler takes the cast
out of the loop.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax.core import meta


def cast(params: Any, dtype_of: Callable[[str], Any]) -> Any:
  """Returns parameters in the dtypes in which a network uses them.

  The network then gives the same results: its layers round each parameter in
  the same way, whenever they do it.

  Args:
    params: tree of arrays, or of boxes of split parameters, whose parts are
      cast (see `denoiser` of `diffusion.Diffusion`).
    dtype_of: name of a parameter, such as 'mid_block_0/conv1/kernel' -> dtype.

  Returns:
    The same tree.
  """

  def cast_leaf(path, leaf):
    dtype = dtype_of(jax.tree_util.keystr(path, simple=True, separator='/'))
    return jax.tree.map(lambda x: x.astype(dtype), leaf)

  return jax.tree_util.tree_map_with_path(
    cast_leaf, params, is_leaf=meta.is_axis_metadata
  )
