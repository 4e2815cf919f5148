"""Resizes and crops images in JAX, for training, sampling and evaluation.

  y = R x C^T     R [h, H], C [w, W] computed once in float64

A resize is two small matrix products, one per axis, which is fast on any
device.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnames=('size', 'method', 'antialias'))
def resize(
  x: np.ndarray | jax.Array,
  size: int | tuple[int, int],
  *,
  method: str = 'bicubic',
  antialias: bool = True,
) -> jax.Array:
  """Resizes along H and W with half-pixel centres.

  The resize is a linear map whose rows sum to one. Nothing is clipped, so
  bicubic and lanczos3 overshoot near edges. Where the filter crosses the border
  of the image, its weights are renormalised, as in Pillow, TensorFlow and JAX.

  Args:
    x: [..., H, W, C] of a float dtype, which is kept; sums are float32.
    size: (h, w), or one integer for both.
    method: 'bicubic' (Keys' kernel with a = -0.5, as Pillow and MATLAB; torch
      and OpenCV use -0.75), 'bilinear', 'lanczos3', 'area' (the mean of the
      covered area, fractions of pixels included) or 'nearest'.
    antialias: True widens the filter when shrinking. It changes nothing for
      'area' and 'nearest'.

  Returns:
    [..., h, w, C].

  Raises:
    ValueError: the input is integer or has too few axes, the method is
      unknown, or the size is empty.
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f'resize takes floats but was given {x.dtype}; use resize_uint8, or '
      'to_float first.'
    )
  rows, columns = _matrices(x.shape, size, method, antialias)
  if x.shape[-3:-1] == (len(rows), len(columns)):
    return x  # at equal sizes every method is the identity
  y = _along(_along(x.astype(jnp.float32), columns, W_AXIS), rows, H_AXIS)
  return y.astype(x.dtype)


@functools.partial(jax.jit, static_argnames=('size', 'method', 'antialias'))
def resize_uint8(
  image: np.ndarray | jax.Array,
  size: int | tuple[int, int],
  *,
  method: str = 'bicubic',
  antialias: bool = True,
) -> jax.Array:
  """Resizes uint8 images exactly as Pillow does, to the same bytes.

  Pillow rounds and clips after the pass along W and again after the pass along
  H, so an overshoot is cut off before it can spread. differs: 'area' is the
  exact mean, rounded once, where Pillow's BOX rounds twice. All sums are sums
  of integers, so a result does not depend on the batch, the device or the
  compiler.

  Args:
    image: uint8 [..., H, W, C].
    size, method, antialias: as in `resize`.

  Returns:
    uint8 [..., h, w, C]. With antialias=True and bicubic, bilinear or lanczos3
    it equals `PIL.Image.resize`. (From Pillow 13 on, only if H does not shrink
    much more than W; otherwise Pillow resizes along H first.)

  Raises:
    ValueError: as in `resize`, or the input is not uint8.
  """
  image = jnp.asarray(image)
  if image.dtype != jnp.uint8:
    raise ValueError(
      f'resize_uint8 takes uint8 but was given {image.dtype}; use to_uint8 '
      'first, or resize.'
    )
  rows, columns = _matrices(image.shape, size, method, antialias)
  levels = image.astype(jnp.float32)
  if method == 'area':
    return _exact_mean(levels, rows, columns).astype(jnp.uint8)
  levels = _rounded_pass(levels, columns, W_AXIS)
  return _rounded_pass(levels, rows, H_AXIS).astype(jnp.uint8)


def _rounded_pass(
  levels: jax.Array, weights: np.ndarray, axis: int
) -> jax.Array:
  """Resizes along one axis as Pillow does, in fixed-point arithmetic.

  The weights have 22 bits, the sums are integers, and the result is rounded to
  0..255. float32 holds the sums exactly because each weight is split into two
  halves of 11 bits. float32 is used because integer matrix products are slow on
  accelerators. The sums are certainly exact up to 64 taps, which is a ratio of
  16 for bicubic, and probably beyond.
  """
  if weights.shape[0] == weights.shape[1]:
    return levels  # at equal sizes every method is the identity
  fixed = np.sign(weights) * np.floor(np.abs(weights) * 2.0**22 + 0.5)
  high = np.round(fixed / 2.0**11)
  halves = np.concatenate([high, fixed - 2.0**11 * high])  # [2 new, length]
  sums = _along(levels, halves, axis).astype(jnp.int32)
  high, low = jnp.split(sums, 2, axis=axis)
  rounded = ((high << 11) + low + (1 << 21)) >> 22
  return jnp.clip(rounded, 0, 255).astype(jnp.float32)


def _exact_mean(
  levels: jax.Array, rows: np.ndarray, columns: np.ndarray
) -> jax.Array:
  """Returns the means of method 'area', with halves rounded up.

  The weights are fractions with the denominators in `units`, so the sums are
  sums of integers, which float32 holds exactly up to 2^24: any ratio up to 256,
  any sizes up to 256.

  Args:
    levels: float32 [..., H, W, C].
    rows, columns: R [h, H] and C [w, W].

  Returns:
    [..., h, w, C].
  """
  units = [m.shape[1] // int(np.gcd(*m.shape)) for m in (rows, columns)]
  area = units[0] * units[1]
  if 255 * area >= 2**24:
    # The sums are then rounded to float32, so a tie may go either way.
    units, area = (1, 1), 1
  total = _along(levels, columns * units[1], W_AXIS)
  total = _along(total, rows * units[0], H_AXIS)
  if area == 1:
    return jnp.floor(total + 0.5)
  return (2 * total.astype(jnp.int32) + area) // (2 * area)


@functools.lru_cache(maxsize=256)
def resize_weights(
  length: int, new_length: int, *, method: str, antialias: bool = True
) -> np.ndarray:
  """Returns the matrix of a resize along one axis.

  Args:
    length, new_length: pixels before and after.
    method, antialias: as in `resize`.

  Returns:
    float64 [new_length, length], read-only; every row sums to one.
  """
  scale = length / new_length
  centers = (np.arange(new_length) + 0.5) * scale  # [new_length]
  pixels = np.arange(length) + 0.5  # [length]
  if method == 'area':
    edges = np.arange(length)
    low = np.maximum(edges, (centers - scale / 2)[:, None])
    high = np.minimum(edges + 1, (centers + scale / 2)[:, None])
    weights = np.maximum(high - low, 0.0)
  elif method == 'nearest':
    weights = np.floor(centers)[:, None] == np.floor(pixels)
  else:
    width = max(scale, 1.0) if antialias else 1.0
    weights = KERNELS[method](np.abs(pixels - centers[:, None]) / width)
  weights = weights / weights.sum(axis=1, keepdims=True)
  weights.setflags(write=False)  # the cache shares it among all callers
  return weights


def _bilinear(d):
  return np.maximum(1.0 - d, 0.0)


def _bicubic(d):
  near = (1.5 * d - 2.5) * d * d + 1.0
  far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
  return np.where(d < 1.0, near, np.where(d < 2.0, far, 0.0))


def _lanczos3(d):
  return np.where(d < 3.0, np.sinc(d) * np.sinc(d / 3.0), 0.0)


# A kernel maps the distance from the centre, in output pixels, to a weight
# before normalisation.
KERNELS: dict[str, Callable] = {
  'bicubic': _bicubic,
  'bilinear': _bilinear,
  'lanczos3': _lanczos3,
}
METHODS = ('area', 'bicubic', 'bilinear', 'lanczos3', 'nearest')
H_AXIS, W_AXIS = -3, -2  # of [..., H, W, C]


def _matrices(
  shape: Sequence[int], size, method: str, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (R [h, H], C [w, W]), float64."""
  if method not in METHODS:
    raise ValueError(
      f'The resize method is {method!r}; known are {list(METHODS)}.'
    )
  if len(shape) < 3:
    raise ValueError(
      f'resize takes [..., H, W, C] but was given the shape {shape}.'
    )
  h, w = (size, size) if np.ndim(size) == 0 else size
  if min(h, w, *shape[-3:-1]) < 1:
    raise ValueError(
      f'Images of {shape[-2]}x{shape[-3]} pixels cannot be resized to {w}x{h}.'
    )
  rows, columns = (
    resize_weights(int(n), int(m), method=method, antialias=antialias)
    for n, m in zip(shape[-3:-1], (h, w), strict=True)
  )
  return rows, columns


def _along(x: jax.Array, weights: np.ndarray, axis: int) -> jax.Array:
  """Resizes x [..., H, W, C] along one axis by weights [new, old]."""
  # Products are in full float32, because accelerators keep only 8 to 11 bits by
  # default.
  return jnp.einsum(
    'ow,...hwc->...hoc' if axis == W_AXIS else 'oh,...hwc->...owc',
    jnp.asarray(weights, jnp.float32),
    x,
    precision=jax.lax.Precision.HIGHEST,
  )


def crop_and_resize(x: jax.Array, box: jax.Array, size: int) -> jax.Array:
  """Cuts a different box out of each image and resizes all boxes to one size.

  The resize is bilinear, antialiased where it shrinks, with half-pixel centres.
  The result equals that of Pillow's `crop` and `resize`, but without rounding;
  pixels outside the box have no influence.

  Args:
    x: [B, H, W, C] float.
    box: int [B, 4]: top, left, height and width in pixels, inside the image.
    size: S, the side of the result in pixels.

  Returns:
    float32 [B, S, S, C].
  """
  rows, columns = (
    jax.vmap(functools.partial(_box_weights, x.shape[axis], size))(
      box[:, i], box[:, i + 2]
    )  # [B, S, H], [B, S, W]
    for i, axis in ((0, 1), (1, 2))
  )
  einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  x = einsum('bow,bhwc->bhoc', columns, x.astype(jnp.float32))
  return einsum('boh,bhwc->bowc', rows, x)


def _box_weights(length, new_length, start, extent):
  """Returns [new, length] weights that resize [start, start + extent).

  The weights are those of a bilinear resize.
  """
  scale = extent / new_length
  centers = start + (jnp.arange(new_length) + 0.5) * scale  # [new]
  pixels = jnp.arange(length) + 0.5  # [length]
  distance = jnp.abs(pixels[None] - centers[:, None]) / jnp.maximum(scale, 1.0)
  inside = (pixels > start) & (pixels < start + extent)
  weights = jnp.where(inside[None], jnp.maximum(1.0 - distance, 0.0), 0.0)
  return weights / weights.sum(axis=1, keepdims=True)


def enlarge_corner(
  canvas: jax.Array, extent: jax.Array, size: int
) -> jax.Array:
  """Enlarges the top left square of each image, each by a factor of its own.

  Images of several sizes are one array if each stands in the corner of a canvas
  of one size. What `resize` computes of the square by bicubic is computed here,
  but with weights in float32, as the sizes are not known before the program
  runs. Pixels outside of the square have no influence.

  Args:
    canvas: [B, H, W, C] float.
    extent: int [B], the side h of each square in pixels, from 1 to `size`.
    size: S, the side of the result in pixels.

  Returns:
    float32 [B, S, S, C].
  """
  rows, columns = (
    jax.vmap(functools.partial(_corner_weights, canvas.shape[axis], size))(
      extent
    )  # [B, S, H], [B, S, W]
    for axis in (1, 2)
  )
  einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  x = einsum('bow,bhwc->bhoc', columns, canvas.astype(jnp.float32))
  return einsum('boh,bhwc->bowc', rows, x)


def _corner_weights(length, new_length, extent):
  """Returns [new, length] bicubic weights that enlarge [0, extent)."""
  centers = (jnp.arange(new_length) + 0.5) * (extent / new_length)  # [new]
  pixels = jnp.arange(length) + 0.5  # [length]
  d = jnp.abs(pixels[None] - centers[:, None])
  near = (1.5 * d - 2.5) * d * d + 1.0
  far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
  kernel = jnp.where(d < 1.0, near, jnp.where(d < 2.0, far, 0.0))
  weights = jnp.where(pixels[None] < extent, kernel, 0.0)
  return weights / weights.sum(axis=1, keepdims=True)


def center_crop(x: jax.Array, size: int) -> jax.Array:
  """Cuts out the central square: [..., H, W, C] -> [..., size, size, C].

  Raises:
    ValueError: the image is smaller than `size` along H or W.
  """
  height, width = x.shape[-3:-1]
  if min(height, width) < size:
    raise ValueError(
      f'Images of {width}x{height} pixels are too small for a central crop of '
      f'{size}x{size}.'
    )
  top, left = (height - size) // 2, (width - size) // 2
  return x[..., top : top + size, left : left + size, :]
