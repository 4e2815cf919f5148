"""Measures how fast this CPU computes a large matrix product."""

import time

import jax
import jax.numpy as jnp

SIZE = 2048
TRIES = 3


def matrix_product_flops() -> float:
  """Returns FLOPs per second of a float32 matrix product on all cores.

  The best of three products of 2048 x 2048 counts, because other work on the
  machine only slows one down. Together they take less than a second.
  """
  x = jnp.ones((SIZE, SIZE), jnp.float32, device=jax.devices('cpu')[0])
  product = jax.jit(jnp.matmul)
  product(x, x).block_until_ready()
  seconds = []
  for _ in range(TRIES):
    began = time.perf_counter()
    product(x, x).block_until_ready()
    seconds.append(time.perf_counter() - began)
  return 2 * SIZE**3 / min(seconds)
