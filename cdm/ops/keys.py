"""Random keys for each example and each image, and noise drawn from them.

What is drawn for an example depends on the key and its index alone, never on
the device, process or batch it is in.
"""

import jax
import jax.numpy as jnp
import numpy as np


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


def image_pairs(seed, indices):
  """-> uint32 [N, 2], what the randomness of image n comes from: (seed, n).

  NumPy, so that every process of a mesh can give the same to a program, and so
  that a method without JAX can be seeded by it. indices: int [N].
  """
  indices = np.asarray(indices, np.uint32)
  return np.stack([np.full_like(indices, seed), indices], axis=1)


def keys_of_pairs(pairs):
  """uint32 [N, 2] of `image_pairs` -> [N] keys, those of `image_keys`."""
  return jax.vmap(
    lambda pair: jax.random.fold_in(jax.random.key(pair[0]), pair[1])
  )(pairs)


def stage_keys(keys, index):
  """-> [N] keys of the index-th stage for the images of `keys`."""
  return jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
