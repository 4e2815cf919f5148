"""Makes the low-res condition of a super-resolution stage, [CDM] sec. 3.

  z_0 = round(downsample(x_0))               like an image of the previous stage
  z_s = alpha_s z_0 + sigma_s eps      at low resolution, [CDM] sec. 3.2, alg. 1
  or    z_0 blurred, in training only                          [CDM] sec. 3.1
  u   = upsample(z_s)                     concatenated with x_t by the network

The augmentation level in [0, 1] tells how much noise z_s has, as a fraction of
the forward process of the previous stage: 0 is clean, 1 is pure noise.
Training, sampling and evaluation all make their low-res images here, so that
they cannot disagree.
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
OFFSET = 0.008  # offset of the cosine schedule, [IDDPM] eq. 17


@dataclasses.dataclass(frozen=True)
class Lowres:
  """How a stage's low-res input is made; the `lowres` section of a config.

  Attributes:
    size: h = w of the low-res image.
    downsample: filter that makes the low-res image from x_0, a method of
      `resize.resize`.
    upsample: filter that enlarges the low-res image to the stage's own size.
    augment: 'none', 'noise' (its level is fed to the network) or 'blur'.
    max_level: the largest level, in (0, 1]; in training, noise levels are
      uniform between 0 and it.
    noise_schedule: the function from level to log-SNR; 'cosine' is [IDDPM]
      eq. 17.
    num_levels: None for continuous levels, or the T of [CDM]. Levels are then
      s / T with s in 0..T, and have the log-SNR of the steps of a previous
      stage that is trained on T steps.
    blur_sigma: (low, high) of the uniform standard deviation of the 3x3 blur,
      in low-res pixels.
    blur_fraction: share of the training examples that are blurred.
    is_rounded: whether low-res images are rounded to uint8, as pictures are;
      not so where arrays are trained on, and no key of a config.

  Raises:
    ValueError: a value is out of range; the message names its key.
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
  is_rounded: bool = True

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
      raise ValueError(f'lowres.size is {self.size}; it must be at least 1.')
    if not 0.0 < self.max_level <= 1.0:
      raise ValueError(
        f'lowres.max_level is {self.max_level}; levels are fractions of the '
        "chain, so use 0 < max_level <= 1, or augment='none'."
      )
    if self.num_levels is not None and not (
      1 <= self.num_levels <= schedules.MOST_STEPS
    ):
      raise ValueError(
        f'lowres.num_levels is {self.num_levels}; use None for continuous '
        'levels or the number of steps T of the previous stage.'
      )
    low, high = self.blur_sigma
    if not 0.0 <= low <= high:
      raise ValueError(
        f'lowres.blur_sigma is {self.blur_sigma}; use (low, high) with '
        '0 <= low <= high.'
      )
    if not 0.0 <= self.blur_fraction <= 1.0:
      raise ValueError(
        f'lowres.blur_fraction is {self.blur_fraction}; it must be a share of '
        'the examples, between 0 and 1.'
      )


def downsample(x_0: jax.Array, lowres: Lowres) -> jax.Array:
  """Shrinks x_0 to z_0 and rounds it as an image of the previous stage.

  The images of the previous stage pass through uint8, and so do these. Training
  therefore never sees a value that sampling cannot produce. The overshoot of
  the filter is clipped.

  Args:
    x_0: [B, H, W, C] images in [-1, 1] that came from uint8.
    lowres: how the low-res image is made.

  Returns:
    z_0: float32 [B, h, w, C] on the 256 values of `pixels.to_float`, unless
      `lowres.is_rounded` is False.

  Raises:
    ValueError: the images are not square, or smaller than the low-res size.
  """
  height, width = x_0.shape[1:3]
  if height != width or height < lowres.size:
    raise ValueError(
      f'Images of {width}x{height} pixels cannot be shrunk to lowres.size = '
      f'{lowres.size}; use square images that are at least as large.'
    )
  if not lowres.is_rounded:
    small = resize.resize(x_0, lowres.size, method=lowres.downsample)
    return jnp.clip(small, -1.0, 1.0)
  shrunk = resize.resize_uint8(
    pixels.to_uint8(x_0), lowres.size, method=lowres.downsample
  )
  return pixels.to_float(shrunk)


def draw_batch(key: jax.Array, n: int) -> dict[str, jax.Array]:
  """Draws what decides how n low-res images are augmented, see `Method.draw`.

  Returns:
    {'u_lowres': [n]}, uniform numbers in [0, 1), stratified over the batch; the
    `u` of `augment_train`.
  """
  return {'u_lowres': schedules.stratified(key, n)}


def augment_train(
  z_0: jax.Array,
  lowres: Lowres,
  *,
  key: jax.Array,
  u: jax.Array | None = None,
  examples: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Augments the low-res images for training, with one draw per example.

  The levels are stratified over the batch. The choice of the blurred images is
  stratified too: their share of a batch is `blur_fraction`, give or take one
  image. differs: [CDM] draws s from 1..T; here s = 0 is drawn too, so that the
  network is also trained on the clean input that sampling may use.

  Args:
    z_0: [B, h, w, C] clean low-res images.
    lowres: how the low-res images are made.
    key: one key for the whole batch.
    u: [B] in [0, 1), the numbers of these images among those that were
      stratified over the whole batch; None if these images are the whole batch.
    examples: int [B], index of each image within the whole batch; None if
      these images are the whole batch.

  Returns:
    (z [B, h, w, C], level float32 [B]); the level of a blurred or clean image
    is 0.
  """
  n = z_0.shape[0]
  if lowres.augment == 'none':
    return z_0, jnp.zeros(n)
  u_key, value_key = jax.random.split(key)
  if u is None:
    u = schedules.stratified(u_key, n)  # [B], in random order
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


def condition_train(
  x_0: jax.Array,
  lowres: Lowres,
  *,
  key: jax.Array,
  u: jax.Array | None,
  examples: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Makes the low-res condition of a batch, [CDM] alg. 1.

  Args:
    x_0: [B, H, W, 3], its images.
    lowres: how it is made.
    key, u, examples: see `augment_train`.

  Returns:
    (upsampled [B, H, W, 3], level [B]).
  """
  z_0 = downsample(x_0, lowres)  # [B, h, w, 3]
  z, level = augment_train(z_0, lowres, key=key, u=u, examples=examples)
  return upsample(z, x_0.shape[1], lowres), level


def augment_at(
  z_0: jax.Array,
  lowres: Lowres,
  *,
  level: jax.Array | np.ndarray,
  eps: jax.Array,
) -> jax.Array:
  """Draws z_s ~ q(z_s | z_0): non-truncated augmentation, [CDM] alg. 2.

  Truncated augmentation does not need this function: the previous stage stops
  sampling at `level_logsnr(level, lowres)`.

  Args:
    z_0: [B, h, w, C] images of the previous stage, rounded to uint8.
    lowres: how the low-res images are made. Unless `augment` is 'noise', z_0 is
      returned unchanged, because blur is for training only.
    level: [B] in [0, 1]; level 0 returns z_0 unchanged.
    eps: [B, h, w, C] standard normal noise.

  Returns:
    z_s: [B, h, w, C].
  """
  if lowres.augment != 'noise':
    return z_0
  return process.q_sample(z_0, eps, logsnr=level_logsnr(level, lowres))


def upsample(z: jax.Array, size: int, lowres: Lowres) -> jax.Array:
  """Enlarges z [B, h, w, C] to the size of the stage, [B, size, size, C].

  The result is not clipped, because noise takes z_s outside [-1, 1] and has to
  stay Gaussian.
  """
  return resize.resize(z, size, method=lowres.upsample)


def level_logsnr(
  level: float | np.ndarray | jax.Array, lowres: Lowres
) -> np.ndarray | jax.Array:
  """Returns the log-SNR of an augmentation level.

  alpha_bar(u) = cos^2(k (u + d)) / cos^2(k d) with k = pi / (2 (1 + d)), d =
  0.008, [IDDPM] eq. 17, written so that neither end loses digits. Level 0 is
  +inf, no noise at all; level 1 is -inf where levels are continuous.

  Args:
    level: [...] in [0, 1]. NumPy and Python numbers are computed on the host,
      in float64.
    lowres: how the low-res images are made; with `num_levels`, the nearest
      s / T is used.

  Returns:
    [...] log alpha_bar / (1 - alpha_bar).
  """
  xp, level = _namespace(level)
  if lowres.num_levels is None:
    return continuous_logsnr(level)
  table = xp.asarray(_table(lowres.num_levels), level.dtype)  # [T + 1]
  return table[xp.round(level * lowres.num_levels).astype(int)]


def continuous_logsnr(
  level: float | np.ndarray | jax.Array,
) -> np.ndarray | jax.Array:
  """Returns the log-SNR [...] of levels [...] in [0, 1], see `level_logsnr`."""
  xp, level = _namespace(level)
  k = np.pi / (2.0 * (1.0 + OFFSET))
  with np.errstate(divide='ignore'):
    signal = 2.0 * xp.log(xp.sin(k * (1.0 - level)))
    noise = xp.log(xp.sin(k * level) * xp.sin(k * (level + 2.0 * OFFSET)))
  return signal - noise


def nearest_level(level: float, lowres: Lowres) -> float:
  """Returns the nearest level that the stage was trained on.

  That is `level` itself where levels are continuous, else the nearest s / T.
  """
  if lowres.num_levels is None:
    return level
  return round(level * lowres.num_levels) / lowres.num_levels


def _level_of_uniform(u, lowres):
  """Turns uniform u [B] in [0, 1) into levels [B] in [0, max_level]."""
  if lowres.num_levels is None:
    return u * lowres.max_level
  last = round(lowres.max_level * lowres.num_levels)  # s in 0..last
  s = jnp.minimum(jnp.floor(u * (last + 1)), last)
  return s / lowres.num_levels


@functools.lru_cache(maxsize=8)
def _table(num_levels: int) -> np.ndarray:
  """Returns float64 [T + 1], the log-SNR of s = 0..T; s = 0 is clean."""
  chain = schedules.cosine(num_levels, offset=OFFSET).logsnr  # [T]
  return np.concatenate([[np.inf], chain])


def _namespace(x):
  """Returns (np or jnp, x as its array); JAX arrays and tracers take jnp."""
  if isinstance(x, jax.Array):
    return jnp, x
  return np, np.asarray(x, np.float64)


def check_doublings(magnification: int, lowres: Lowres) -> None:
  """Raises ValueError unless doubling gives the size of the image.

  Args:
    magnification: H / h.
    lowres: how the low-res images are made.
  """
  if magnification & (magnification - 1):
    raise ValueError(
      f'lowres.size is {lowres.size}, but this network enlarges images by '
      f'doubling, which does not give {magnification} times that; use an '
      'image size of 2, 4, 8, ... times lowres.size.'
    )
