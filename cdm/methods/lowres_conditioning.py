"""The low-res image a super-resolution stage is given, from x_0 to the network.

  z_0 = round(downsample(x_0))                    what the stage before it draws
  z_s = alpha_s z_0 + sigma_s eps      at low resolution, [CDM] sec. 3.2, alg. 1
  or    z_0 blurred, in training only                          [CDM] sec. 3.1
  u   = upsample(z_s)                     concatenated with x_t by the network

A level in [0, 1] says how far along the chain of the stage before it z_s is:
0 is clean, 1 is noise alone. The one place where images are degraded, so that
training, sampling and evaluation cannot disagree.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import process, schedules
from cdm.ops import blur, pixels, resize
from cdm.ops.keys import example_keys, normals

AUGMENTS = ('none', 'noise', 'blur')
NOISE_SCHEDULES = ('cosine',)
OFFSET = 0.008  # of the cosine schedule, [IDDPM] eq. 17


@dataclasses.dataclass(frozen=True)
class Lowres:
  """How a stage's low-res input is made; the `lowres` section of a config.

  Attributes:
    size: h = w of the low-res image.
    downsample: filter that makes it from x_0, a method of `resize.resize`.
    upsample: filter that brings it to the stage's own size.
    augment: 'none', 'noise' (its level is fed to the network) or 'blur'.
    max_level: noise levels are uniform up to this one, in (0, 1].
    noise_schedule: level -> log-SNR; 'cosine' is [IDDPM] eq. 17.
    num_levels: None for continuous levels, or the T of [CDM]: levels are then
      s / T with s in 0..T, at the log-SNR of the stage before it that is
      trained on T steps.
    blur_sigma: (low, high) of the uniform standard deviation of the 3x3 blur,
      in low-res pixels.
    blur_fraction: share of the training examples that are blurred.

  Raises:
    ValueError: a value that cannot be used, naming the key.
  """

  size: int
  downsample: str = 'bicubic'
  upsample: str = 'bicubic'
  augment: str = 'none'
  max_level: float = 1.0
  noise_schedule: str = 'cosine'
  num_levels: int | None = None
  blur_sigma: tuple[float, float] = (0.4, 0.6)
  blur_fraction: float = 0.5

  def __post_init__(self):
    for key, known in (
      ('downsample', resize.METHODS),
      ('upsample', resize.METHODS),
      ('augment', AUGMENTS),
      ('noise_schedule', NOISE_SCHEDULES),
    ):
      if getattr(self, key) not in known:
        raise ValueError(
          f'lowres.{key} is {getattr(self, key)!r}; known are {list(known)}.'
        )
    if self.size < 1:
      raise ValueError(f'lowres.size is {self.size}; it is h = w, at least 1.')
    if not 0.0 < self.max_level <= 1.0:
      raise ValueError(
        f'lowres.max_level is {self.max_level}; levels are fractions of the '
        "chain, so use 0 < max_level <= 1, or augment='none'."
      )
    if self.num_levels is not None and self.num_levels < 1:
      raise ValueError(
        f'lowres.num_levels is {self.num_levels}; use None for continuous '
        'levels or the number of steps T of the stage before.'
      )
    low, high = self.blur_sigma
    if not 0.0 <= low <= high:
      raise ValueError(
        f'lowres.blur_sigma is {self.blur_sigma}; use (low, high) with '
        '0 <= low <= high.'
      )
    if not 0.0 <= self.blur_fraction <= 1.0:
      raise ValueError(
        f'lowres.blur_fraction is {self.blur_fraction}; it is a share of the '
        'examples, between 0 and 1.'
      )


def downsample(x_0, lowres):
  """z_0: x_0 shrunk, and rounded as a picture of the stage before it is.

  Goes through uint8 as those pictures do, so training never sees a value that
  sampling cannot produce; the overshoot of the filter is clipped.

  Args:
    x_0: [B, H, W, C] images in [-1, 1] that came from uint8.
    lowres: `Lowres`.

  Returns:
    z_0: float32 [B, h, w, C] on the 256 values of `pixels.to_float`.

  Raises:
    ValueError: images that are not square, or smaller than the low-res size.
  """
  height, width = x_0.shape[1:3]
  if height != width or height < lowres.size:
    raise ValueError(
      f'Images of {height}x{width} pixels cannot be shrunk to lowres.size = '
      f'{lowres.size}; use square ones at least that large.'
    )
  shrunk = resize.resize_uint8(
    pixels.to_uint8(x_0), lowres.size, method=lowres.downsample
  )
  return pixels.to_float(shrunk)


def augment_train(z_0, lowres, *, key, u=None, examples=None):
  """Degrades the low-res images as training asks, one draw per example.

  Levels are stratified over the batch, and so is who is blurred: the share of
  a batch is the declared one, give or take one image. differs: [CDM] draws s
  from 1..T; here s = 0 is drawn too, so that the clean input that sampling may
  use has been trained on.

  Args:
    z_0: [B, h, w, C] clean low-res images.
    lowres: `Lowres`.
    key: of the whole batch.
    u: [B] in [0, 1), this part of what was stratified over the whole batch;
      None where it is the whole.
    examples: int [B], numbers of the images within the whole batch; None
      where it is that.

  Returns:
    (z [B, h, w, C], level float32 [B]); the level of a blurred or clean image
    is 0.
  """
  n = z_0.shape[0]
  if lowres.augment == 'none':
    return z_0, jnp.zeros(n)
  u_key, value_key = jax.random.split(key)
  if u is None:
    u = schedules.stratified(u_key, n)  # [B], in no order
  keys = example_keys(
    value_key, jnp.arange(n) if examples is None else examples
  )
  if lowres.augment == 'noise':
    level = _level_of_uniform(u, lowres)
    eps = normals(keys, z_0.shape[1:])
    return augment_at(z_0, lowres, level=level, eps=eps), level
  low, high = lowres.blur_sigma
  sigma = jax.vmap(
    lambda key: jax.random.uniform(key, minval=low, maxval=high)
  )(keys)
  # At sigma = 0 the blur is the identity, bit for bit.
  sigma = jnp.where(u < lowres.blur_fraction, sigma, 0.0)
  return blur.gaussian_blur(z_0, sigma), jnp.zeros(n)


def augment_at(z_0, lowres, *, level, eps):
  """z_s ~ q(z_s | z_0): non-truncated augmentation, [CDM] alg. 2.

  Truncated augmentation needs no call: the stage before stops at
  `level_logsnr(level, lowres)`.

  Args:
    z_0: [B, h, w, C] pictures of the stage before, through uint8.
    lowres: `Lowres`; blur is for training only, and there is nothing to do
      here unless `augment` is 'noise'.
    level: [B] in [0, 1]; 0 gives z_0 back.
    eps: [B, h, w, C] standard normal noise.

  Returns:
    z_s: [B, h, w, C].
  """
  if lowres.augment != 'noise':
    return z_0
  return process.q_sample(z_0, eps, logsnr=level_logsnr(level, lowres))


def upsample(z, size, lowres):
  """z: [B, h, w, C] -> [B, size, size, C], at the size of the stage.

  Not clipped: the noise in z_s lies outside [-1, 1] and has to stay Gaussian.
  """
  return resize.resize(z, size, method=lowres.upsample)


def level_logsnr(level, lowres):
  """The log-SNR of an augmentation level.

  alpha_bar(u) = cos^2(k (u + d)) / cos^2(k d) with k = pi / (2 (1 + d)), d =
  0.008, [IDDPM] eq. 17, written so that neither end loses digits. Level 0 is
  +inf, no noise at all; level 1 is -inf where levels are continuous.

  Args:
    level: [...] in [0, 1]. NumPy numbers stay on the host, in float64.
    lowres: `Lowres`; with `num_levels`, the nearest s / T is used.

  Returns:
    [...] log alpha_bar / (1 - alpha_bar).
  """
  xp, level = _namespace(level)
  if lowres.num_levels is not None:
    table = xp.asarray(_table(lowres.num_levels), level.dtype)  # [T + 1]
    return table[xp.round(level * lowres.num_levels).astype(int)]
  k = np.pi / (2.0 * (1.0 + OFFSET))
  with np.errstate(divide='ignore'):
    signal = 2.0 * xp.log(xp.sin(k * (1.0 - level)))
    noise = xp.log(xp.sin(k * level) * xp.sin(k * (level + 2.0 * OFFSET)))
  return signal - noise


def nearest_level(level, lowres):
  """-> the level the stage was trained on: `level`, or the nearest s / T."""
  if lowres.num_levels is None:
    return level
  return round(level * lowres.num_levels) / lowres.num_levels


def _level_of_uniform(u, lowres):
  """u: [B] in [0, 1) -> level [B] in [0, max_level]."""
  if lowres.num_levels is None:
    return u * lowres.max_level
  last = round(lowres.max_level * lowres.num_levels)  # s in 0..last
  s = jnp.minimum(jnp.floor(u * (last + 1)), last)
  return s / lowres.num_levels


@functools.lru_cache(maxsize=8)
def _table(num_levels):
  """-> float64 [T + 1], log-SNR of s = 0..T; s = 0 is clean."""
  chain = schedules.cosine(num_levels, offset=OFFSET).logsnr  # [T]
  return np.concatenate([[np.inf], chain])


def _namespace(x):
  """-> (np or jnp, x as an array of it); tracers and jax arrays go to jnp."""
  if isinstance(x, jax.Array):
    return jnp, x
  return np, np.asarray(x, np.float64)
