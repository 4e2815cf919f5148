"""Evaluates a network with and without its labels in one call.

  one call:   x_t, x_t of every image side by side, [2 B]; the parameters are
              read once per step of a sampler
  two calls:  [B] with labels, then [B] with the null class, in half the memory

The numbers are the same but for rounding. One call is faster where a step
mostly reads parameters, which is where a device draws few pixels at once; with
many pixels it gains nothing and would double the memory of a step.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from cdm.diffusion import guidance
from cdm.diffusion.parameterization import Denoiser, Prediction
from cdm.ops import known_platform

# Pixels that a device draws at once, up to which the two are evaluated in one
# call: 8 images of 64 x 64 pixels. For a TPU v6e the compiler counts 1.89 GB in
# a step of images_small_64 with 4 images in one call, and 3.38 GB in two. With
# 1 or 16 images the two forms are within a tenth of each other, so that above
# only the memory counts (`benchmarks/guidance.py --topology`).
MOST_PIXELS = 2**15
# The same on CPUs. Two calls are 1.5 to 11% faster there for images_small_64 in
# batches of 1 to 4, and as fast for 8 (`benchmarks/guidance.py`).
MOST_PIXELS_ON_CPUS = 0
# The one axis of a mesh whose devices share the images of a batch.
_WHOLE_BATCH = 'tensor'

# (**conditions of a network) -> denoiser with these bound.
Bind = Callable[..., Denoiser]


def is_better(n: int, pixels: int) -> bool:
  """Returns whether one call is better than two.

  Args:
    n: number of images, over all devices of the mesh that JAX knows; in a
      `jax.shard_map`, those of this device; in an exported program it may be
      open.
    pixels: H * W of an image.
  """
  if export.is_symbolic_dim(n):
    return False  # One program serves every number.
  mesh = jax.sharding.get_abstract_mesh()
  shared = {_WHOLE_BATCH, *mesh.manual_axes}
  shards = [size for axis, size in mesh.shape.items() if axis not in shared]
  on_cpus = known_platform.platform() == 'cpu'
  most = MOST_PIXELS_ON_CPUS if on_cpus else MOST_PIXELS
  return -(-n // math.prod(shards)) * pixels <= most


def paired(
  bind: Bind, conditions: dict[str, Any], *, null: jax.Array
) -> guidance.Pair:
  """Returns a function that evaluates a network with and without its labels.

  Both inputs of an image follow each other in the batch. So a batch that is
  split over devices stays where it is, which two halves one after the other
  would not.

  Args:
    bind: the network; its arguments are the conditions.
    conditions: {name: [B, ...] or None}, with `label` among them.
    null: int32 [B], the null class.
  """
  doubled = {k: None if v is None else _twice(v) for k, v in conditions.items()}
  doubled['label'] = _interleaved(conditions['label'], null)
  denoise = bind(**doubled)

  def both(x_t, logsnr) -> tuple[Prediction, Prediction]:
    prediction = denoise(_twice(x_t), _twice(logsnr))
    pairs = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), prediction)
    labelled = jax.tree.map(lambda x: x[:, 0], pairs)
    return labelled, jax.tree.map(lambda x: x[:, 1], pairs)

  return both


def _twice(x):
  """[B, ...] -> [2 B, ...], each row followed by itself."""
  return _interleaved(x, x)


def _interleaved(x, y):
  """[B, ...], [B, ...] -> [2 B, ...], the rows of both in turn."""
  return jnp.stack([x, y], axis=1).reshape(-1, *x.shape[1:])
