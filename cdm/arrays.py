"""Array vocabulary shared by every room. Axes are B H W C."""

import jax
import jax.numpy as jnp

Array = jax.Array


def expand_like(a, x):
  """a: [B], x: [B, ...] -> a with singleton axes appended, [B, 1, ..., 1]."""
  return a.reshape(a.shape + (1,) * (x.ndim - a.ndim))


def mean_flat(x):
  """x: [B, ...] -> [B], the mean over everything but the batch, in float32."""
  return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))
