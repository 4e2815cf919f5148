"""Random keys for each example and each image, and noise drawn from them.

What is drawn for an example depends on the key and its index alone, never on
the device, process or batch it is in.
"""

import jax
import jax.numpy as jnp


def example_keys(key, examples):
  """-> [B] keys, of example n from (key, n) only.

  What is drawn with them does not depend on the device, process or microbatch
  that an example is in.

  Args:
    key: of the whole batch.
    examples: int [B], numbers within it.
  """
  return jax.vmap(lambda n: jax.random.fold_in(key, n))(examples)


def normals(keys, shape):
  """keys [B] -> [B, *shape] standard normal, float32."""
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def image_keys(seed, indices):
  """-> [N] keys, of image n from (seed, n) only. indices: int [N].

  Works inside jit, too, where the keys of a mesh of processes are made.
  """
  key = jax.random.key(seed)
  return jax.vmap(lambda n: jax.random.fold_in(key, n))(
    jnp.asarray(indices, jnp.uint32)
  )


def stage_keys(keys, index):
  """-> [N] keys of the index-th stage for the images of `keys`."""
  return jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
