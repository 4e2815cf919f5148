"""The one resize of this project, for training, sampling and measuring.

  y = R x C^T     R [h, H], C [w, W] made once in float64

A resize is two small matrix products, one per axis, and quick on any device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnames=('size', 'method', 'antialias'))
def resize(x, size, *, method='bicubic', antialias=True):
  """Resizes along H and W with half-pixel centres.

  A linear map whose rows sum to one: nothing is clipped, so bicubic and
  lanczos3 overshoot near edges. Where the filter reaches over the border its
  weights are renormalised, as in Pillow, TensorFlow and JAX.

  Args:
    x: [..., H, W, C] of a float dtype, which is kept; sums are float32.
    size: tuple (h, w), or one number for both.
    method: 'bicubic' (Keys' kernel with a = -0.5, as Pillow and MATLAB; torch
      and OpenCV use -0.75), 'bilinear', 'lanczos3', 'area' (the mean of the
      covered area, fractions of pixels included) or 'nearest'.
    antialias: widen the filter when shrinking. 'area' and 'nearest' are the
      same with and without.

  Returns:
    [..., h, w, C].

  Raises:
    ValueError: integer input, too few axes, an unknown method or empty size.
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f'resize takes floats and was given {x.dtype}; use resize_uint8, or '
      'to_float first.'
    )
  rows, columns = _matrices(x.shape, size, method, antialias)
  if x.shape[-3:-1] == (len(rows), len(columns)):
    return x  # every method is the identity then
  y = _along(_along(x.astype(jnp.float32), columns, W_AXIS), rows, H_AXIS)
  return y.astype(x.dtype)


@functools.partial(jax.jit, static_argnames=('size', 'method', 'antialias'))
def resize_uint8(image, size, *, method='bicubic', antialias=True):
  """Resizes a picture that is stored as bytes, as Pillow does: the same bytes.

  Pillow rounds and clips after the pass along W and again after the pass along
  H, so an overshoot is cut off before it can spread. differs: 'area' is the
  exact mean, rounded once, where Pillow's BOX rounds twice. The sums are those
  of integers, so a byte does not depend on the batch, the device or the
  compiler.

  Args:
    image: uint8 [..., H, W, C].
    size, method, antialias: as `resize`.

  Returns:
    uint8 [..., h, w, C]; with antialias=True what `PIL.Image.resize` gives for
    bicubic, bilinear and lanczos3. (From Pillow 13 on, if H does not shrink
    much more than W: it starts with H then.)

  Raises:
    ValueError: as `resize`, or input that is not uint8.
  """
  image = jnp.asarray(image)
  if image.dtype != jnp.uint8:
    raise ValueError(
      f'resize_uint8 was given {image.dtype}; use to_uint8 first, or resize.'
    )
  rows, columns = _matrices(image.shape, size, method, antialias)
  levels = image.astype(jnp.float32)
  if method == 'area':
    return _exact_mean(levels, rows, columns).astype(jnp.uint8)
  levels = _rounded_pass(levels, columns, W_AXIS)
  return _rounded_pass(levels, rows, H_AXIS).astype(jnp.uint8)


def _rounded_pass(levels, weights, axis):
  """One pass of Pillow: weights of 22 bits, a sum in integers, a byte.

  float32 holds the sums exactly because each weight is split in two halves of
  11 bits; integer matrix products are slow on accelerators, these are not.
  That is certain up to 64 taps, a ratio of 16 for bicubic, and likely beyond.
  """
  if weights.shape[0] == weights.shape[1]:
    return levels  # every method is the identity then
  fixed = np.sign(weights) * np.floor(np.abs(weights) * 2.0**22 + 0.5)
  high = np.round(fixed / 2.0**11)
  halves = np.concatenate([high, fixed - 2.0**11 * high])  # [2 new, length]
  sums = _along(levels, halves, axis).astype(jnp.int32)
  high, low = jnp.split(sums, 2, axis=axis)
  rounded = ((high << 11) + low + (1 << 21)) >> 22
  return jnp.clip(rounded, 0, 255).astype(jnp.float32)


def _exact_mean(levels, rows, columns):
  """The mean of 'area' over R and C, half up: float32 [..., H, W, C] -> h, w.

  The weights are fractions with the denominator `unit`, so the sums are those
  of integers, exact up to 2^24: any ratio up to 256, any sizes up to 256.
  """
  units = [m.shape[1] // int(np.gcd(*m.shape)) for m in (rows, columns)]
  area = units[0] * units[1]
  if 255 * area >= 2**24:
    units, area = (1, 1), 1  # float32 rounds; a tie may go either way
  total = _along(levels, columns * units[1], W_AXIS)
  total = _along(total, rows * units[0], H_AXIS)
  if area == 1:
    return jnp.floor(total + 0.5)
  return (2 * total.astype(jnp.int32) + area) // (2 * area)


@functools.lru_cache(maxsize=256)
def resize_weights(length, new_length, *, method, antialias=True):
  """The matrix of a resize along one axis.

  Args:
    length, new_length: pixels before and after.
    method, antialias: as `resize`.

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
  weights.setflags(write=False)  # it is shared by every caller
  return weights


def _bilinear(d):
  return np.maximum(1.0 - d, 0.0)


def _bicubic(d):
  near = (1.5 * d - 2.5) * d * d + 1.0
  far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
  return np.where(d < 1.0, near, np.where(d < 2.0, far, 0.0))


def _lanczos3(d):
  return np.where(d < 3.0, np.sinc(d) * np.sinc(d / 3.0), 0.0)


# Distance from the centre, in output pixels, -> weight before normalisation.
KERNELS = {'bicubic': _bicubic, 'bilinear': _bilinear, 'lanczos3': _lanczos3}
METHODS = ('area', 'bicubic', 'bilinear', 'lanczos3', 'nearest')
H_AXIS, W_AXIS = -3, -2  # of [..., H, W, C]


def _matrices(shape, size, method, antialias):
  """-> (R [h, H], C [w, W]), float64."""
  if method not in METHODS:
    raise ValueError(
      f'The resize method is {method!r}; known are {list(METHODS)}.'
    )
  if len(shape) < 3:
    raise ValueError(
      f'resize takes [..., H, W, C] and was given the shape {shape}.'
    )
  h, w = (size, size) if np.ndim(size) == 0 else size
  if min(h, w, *shape[-3:-1]) < 1:
    raise ValueError(f'Cannot resize {shape[-3:-1]} pixels to {(h, w)}.')
  return tuple(
    resize_weights(int(n), int(m), method=method, antialias=antialias)
    for n, m in zip(shape[-3:-1], (h, w), strict=True)
  )


def _along(x, weights, axis):
  """x: [..., H, W, C], weights: [new, old] -> x with `axis` of that length."""
  # Full float32 products: the defaults of accelerators keep 8 to 11 bits.
  return jnp.einsum(
    'ow,...hwc->...hoc' if axis == W_AXIS else 'oh,...hwc->...owc',
    jnp.asarray(weights, jnp.float32),
    x,
    precision=jax.lax.Precision.HIGHEST,
  )


def crop_and_resize(x, box, size):
  """Cuts a box of its own out of each image and makes all of one size.

  Bilinear, antialiased where it shrinks, with half-pixel centres: Pillow's
  `crop` then `resize`, without rounding. Pixels outside the box count nothing.

  Args:
    x: [B, H, W, C] float.
    box: int [B, 4]: top, left, height and width in pixels, inside the image.
    size: S, pixels.

  Returns:
    float32 [B, S, S, C].
  """
  rows, columns = (
    jax.vmap(functools.partial(_box_weights, x.shape[axis], size))(
      box[:, i], box[:, i + 2]
    )  # [B, S, H], [B, S, W]
    for i, axis in ((0, 1), (1, 2))
  )
  given = dict(precision=jax.lax.Precision.HIGHEST)
  x = jnp.einsum('bow,bhwc->bhoc', columns, x.astype(jnp.float32), **given)
  return jnp.einsum('boh,bhwc->bowc', rows, x, **given)


def _box_weights(length, new_length, start, extent):
  """-> [new, length], of a bilinear resize of [start, start + extent)."""
  scale = extent / new_length
  centers = start + (jnp.arange(new_length) + 0.5) * scale  # [new]
  pixels = jnp.arange(length) + 0.5  # [length]
  distance = jnp.abs(pixels[None] - centers[:, None]) / jnp.maximum(scale, 1.0)
  inside = (pixels > start) & (pixels < start + extent)
  weights = jnp.where(inside[None], jnp.maximum(1.0 - distance, 0.0), 0.0)
  return weights / weights.sum(axis=1, keepdims=True)


def center_crop(x, size):
  """[..., H, W, C] -> [..., size, size, C], the middle.

  Raises:
    ValueError: the image is smaller than that.
  """
  height, width = x.shape[-3:-1]
  if min(height, width) < size:
    raise ValueError(
      f'Images of {height}x{width} pixels have no middle of {size}x{size}.'
    )
  top, left = (height - size) // 2, (width - size) // 2
  return x[..., top : top + size, left : left + size, :]
