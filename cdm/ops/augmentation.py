"""What a classifier sees of an image: random crops in training, its middle.

  area = H W u,  u ~ U(scale);   log(width / height) ~ U(log ratio)

of the box that is cut out and resized, [Szegedy et al. 2015] sec. 6; a box
that does not fit is drawn again, as torchvision's RandomResizedCrop does. On
the device, and by the key of each example: what is drawn for it depends on
neither the batch nor the mesh.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cdm.ops import resize
from cdm.ops.keys import example_keys

TRIES = 10  # of torchvision


def random_crop_and_flip(x, *, key, examples, size, scale, ratio, flip):
  """Augments a batch.

  Args:
    x: [B, H, W, C] float.
    key: of the whole batch.
    examples: int [B], numbers of the images within it.
    size: S, pixels.
    scale, ratio: see `random_box`.
    flip: exchange left and right of every second image, at random.

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
  turned = jax.vmap(jax.random.bernoulli)(example_keys(flip_key, examples))
  return jnp.where(turned[:, None, None, None], x[:, :, ::-1], x)


def random_box(key, height, width, *, scale, ratio):
  """Draws a box inside an image.

  Args:
    key: of this image.
    height, width: of the image, pixels.
    scale: (low, high) of the share of its area.
    ratio: (low, high) of width / height.

  Returns:
    int32 [4]: top, left, height, width. If no try fits, the largest box in
    the middle whose aspect is within `ratio`.
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
  # The minimum: a product that rounds up must not reach over the border.
  top = jnp.minimum((u[2, first] * (height - h + 1)).astype(int), height - h)
  left = jnp.minimum((u[3, first] * (width - w + 1)).astype(int), width - w)
  drawn = jnp.stack([top, left, h, w])
  whole = _largest(height, width, ratio)
  return jnp.where(fits.any(), drawn, jnp.asarray(whole, jnp.int32))


def _largest(height, width, ratio):
  """-> (top, left, height, width) of the middle, its aspect within `ratio`."""
  h = min(height, round(width / ratio[0]))
  w = min(width, round(height * ratio[1]))
  return (height - h) // 2, (width - w) // 2, h, w
