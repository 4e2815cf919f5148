"""Blurs each example of a batch with a Gaussian of its own width."""

import jax
import jax.numpy as jnp


def gaussian_blur(
  x: jax.Array, sigma: jax.Array, *, size: int = 3
) -> jax.Array:
  """Blurs each example with its own Gaussian; borders are reflected.

  The reflection does not repeat the border pixel. At sigma = 0 the kernel is 1
  at its centre and 0 elsewhere, so x is returned bit for bit.

  Args:
    x: [B, H, W, C] float.
    sigma: [B] standard deviation in pixels, >= 0.
    size: odd number of taps along each axis.

  Returns:
    [B, H, W, C].

  Raises:
    ValueError: `size` is even, or the image is too small to be reflected by
      `size // 2` pixels.
  """
  reach = size // 2
  if size % 2 == 0 or min(x.shape[1:3]) <= reach:
    raise ValueError(
      f'A blur of {size} taps needs an odd size and images of more than '
      f'{reach} pixels a side; the images have {x.shape[2]}x{x.shape[1]}.'
    )
  distance = jnp.arange(-reach, reach + 1, dtype=jnp.float32)  # [size]
  scaled = distance[None] / jnp.maximum(sigma, 1e-6)[:, None]  # [B, size]
  kernel = jnp.exp(-0.5 * scaled**2)
  kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(x.dtype)
  for axis in (1, 2):
    pad = [(reach, reach) if i == axis else (0, 0) for i in range(4)]
    padded = jnp.pad(x, pad, mode='reflect')
    taps = (
      kernel[:, i, None, None, None]
      * jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis)
      for i in range(size)
    )
    x = sum(taps, start=jnp.zeros((), x.dtype))
  return x
