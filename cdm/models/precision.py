"""Chooses the precision of products, so that float32 is float32 everywhere.

XLA's default multiplies float32 in one pass of bfloat16 on TPUs and in TF32 on
GPUs from Ampere on, which keep 8 and 11 of 24 bits. `HIGHEST` asks for all of
them: six passes on TPUs, the units of float32 on GPUs. On CPUs both are the
same. Products of bfloat16 need no more than the default: the matrix units of
TPUs and of GPUs add them in float32.
"""

from typing import Any

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def of(dtype: Any) -> jax.lax.Precision | None:
  """Returns the precision of products of a dtype; None is XLA's default.

  The gradients of a product have the precision of the product.

  Args:
    dtype: the dtype of computation, or its name.
  """
  return HIGHEST if jnp.dtype(dtype) == jnp.float32 else None
