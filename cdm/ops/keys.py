"""Makes random keys for each example and image, and draws noise from them.

The draws for an example depend only on the key and the example's index, never
on the device, process or batch that the example is in.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def example_keys(key: jax.Array, examples: jax.Array) -> jax.Array:
  """Returns [B] keys; the key of example n depends on (key, n) only.

  Args:
    key: one key for the whole batch.
    examples: int [B], index of each example within the whole batch.
  """
  return jax.vmap(lambda n: jax.random.fold_in(key, n))(examples)


def normals(keys: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Draws standard normal noise: keys [B] -> float32 [B, *shape]."""
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def image_keys(
  seed: int | jax.Array, indices: np.ndarray | jax.Array | Sequence[int]
) -> jax.Array:
  """Returns [N] keys; the key of image n depends on (seed, n) only.

  Call it inside jit to make the keys on a mesh of several processes.

  Args:
    seed: seed of the whole run.
    indices: int [N], index of each image.
  """
  key = jax.random.key(seed)
  return jax.vmap(lambda n: jax.random.fold_in(key, n))(
    jnp.asarray(indices, jnp.uint32)
  )


def seed_pairs(seed: int, indices: np.ndarray | Sequence[int]) -> np.ndarray:
  """Returns uint32 [N, 2], the pair (seed, n) that seeds image n.

  The pairs are NumPy, so that every process of a mesh can pass the same pairs
  to a program, and so that a method without JAX can be seeded by them.

  Args:
    seed: seed of the whole run.
    indices: int [N], index of each image.
  """
  indices = np.asarray(indices, np.uint32)
  return np.stack([np.full_like(indices, seed), indices], axis=1)


def pairs_to_keys(pairs: np.ndarray | jax.Array) -> jax.Array:
  """Returns the [N] keys of `image_keys` for the pairs of `seed_pairs`."""
  return jax.vmap(
    lambda pair: jax.random.fold_in(jax.random.key(pair[0]), pair[1])
  )(pairs)


def stage_keys(keys: jax.Array, index: int) -> jax.Array:
  """Returns [N] keys for stage `index` of a cascade, from the images' keys."""
  return jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
