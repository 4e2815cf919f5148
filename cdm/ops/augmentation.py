"""Draws random resized crops and flips for classifier training, on the device.

  area = H W u,  u ~ U(scale);   log(width / height) ~ U(log ratio)

These are the area and the aspect of the box that is cut out and resized,
[Szegedy et al. 2015] sec. 6. A box that does not fit into the image is drawn
again, as torchvision's RandomResizedCrop does. Every example has its own key,
so its crop depends on neither the batch nor the device mesh.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cdm.ops import resize
from cdm.ops.keys import example_keys

TRIES = 10  # as in torchvision


def random_crop_and_flip(
  x: jax.Array,
  *,
  key: jax.Array,
  examples: jax.Array,
  size: int,
  scale: Sequence[float],
  ratio: Sequence[float],
  flip: bool,
) -> jax.Array:
  """Cuts a random box out of each image, resizes it and may mirror it.

  Args:
    x: [B, H, W, C] float.
    key: one key for the whole batch.
    examples: int [B], index of each image within the whole batch.
    size: S, the side of the result in pixels.
    scale, ratio: see `random_box`.
    flip: True mirrors each image left to right with probability 1/2.

  Returns:
    float32 [B, S, S, C].
  """
  box_key, flip_key = jax.random.split(key)
  boxes = jax.vmap(
    lambda key: random_box(key, *x.shape[1:3], scale=scale, ratio=ratio)
  )(example_keys(box_key, examples))
  x = resize.crop_and_resize(x, boxes, size)
  if not flip:
    return x
  mirrored = jax.vmap(jax.random.bernoulli)(example_keys(flip_key, examples))
  return jnp.where(mirrored[:, None, None, None], x[:, :, ::-1], x)


def random_box(
  key: jax.Array,
  height: int,
  width: int,
  *,
  scale: Sequence[float],
  ratio: Sequence[float],
) -> jax.Array:
  """Draws a box inside an image.

  Args:
    key: the key of this image.
    height, width: size of the image in pixels.
    scale: (low, high), the area of the box as a share of the image's area.
    ratio: (low, high) of the box's width / height.

  Returns:
    int32 [4]: top, left, height and width of the box. If none of `TRIES` boxes
    fits, it is the largest centred box whose aspect is within `ratio`.
  """
  u = jax.random.uniform(key, (4, TRIES))
  area = height * width * (scale[0] + u[0] * (scale[1] - scale[0]))
  low, high = np.log(ratio)
  aspect = jnp.exp(low + u[1] * (high - low))
  w = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)  # [TRIES]
  h = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
  fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
  first = jnp.argmax(fits)
  h, w = h[first], w[first]
  # The minimum keeps a product that rounds up from crossing the border.
  top = jnp.minimum((u[2, first] * (height - h + 1)).astype(int), height - h)
  left = jnp.minimum((u[3, first] * (width - w + 1)).astype(int), width - w)
  drawn = jnp.stack([top, left, h, w])
  whole = _largest(height, width, ratio)
  return jnp.where(fits.any(), drawn, jnp.asarray(whole, jnp.int32))


def _largest(
  height: int, width: int, ratio: Sequence[float]
) -> tuple[int, int, int, int]:
  """Returns the largest centred box with an aspect within `ratio`.

  Returns:
    (top, left, height, width).
  """
  h = min(height, round(width / ratio[0]))
  w = min(width, round(height * ratio[1]))
  return (height - h) // 2, (width - w) // 2, h, w
