"""Makes low-res inputs that may be degraded, and tells what degraded them.

  low = jpeg(noise(blur(shrink(image))))     in this order, each of them or none

The levels are the numbers that a network is told of an input. Each is 0 where
nothing was done, and at most about 1:

  log2_factor   log2 of image size / low-res size, 0 to 2
  noise         sigma in grey levels / 6
  jpeg          (100 - quality) / 50
  blur          sigma in low-res pixels

The filter that shrinks an image varies too, and is not told: nobody who has a
picture knows it.
"""

import functools
import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from cdm.data import transforms

LEVELS = ('log2_factor', 'noise', 'jpeg', 'blur')
NOISE_UNIT, JPEG_UNIT = 6.0, 50.0
# Shares of the filters: ours. Bicubic is what the field's low-res files have;
# 'reflected' is MATLAB's imresize, which differs at the border and in rounding.
FILTERS = {
  'bicubic': 0.4,
  'reflected': 0.2,
  'area': 0.15,
  'lanczos': 0.1,
  'gaussian': 0.15,
}
GAUSSIAN_SIGMA = (0.3, 0.5)  # of low-res pixels
# What a mild degradation is at most: what telephones and web pages leave.
MOST_BLUR = 1.2  # low-res pixels
MOST_NOISE = 6.0  # grey levels
LEAST_QUALITY, MOST_QUALITY = 50, 95  # of JPEG
# Each of the three is left out of so many degraded inputs, so that each also
# comes alone.
LEFT_OUT = 0.25


class Degradation(NamedTuple):
  """What is done to a low-res image.

  Attributes:
    blur: sigma in low-res pixels; 0 leaves it out.
    noise: sigma in grey levels; 0 leaves it out.
    quality: of JPEG; None leaves it out.
    is_poisson: whether the variance of the noise grows with the level, and has
      the value of `noise` in mid grey.
    is_grey: whether all channels have the same noise.
  """

  blur: float = 0.0
  noise: float = 0.0
  quality: int | None = None
  is_poisson: bool = False
  is_grey: bool = False


CLEAN = Degradation()


def draw(rng: np.random.Generator, share: float) -> Degradation:
  """Draws a degradation.

  Args:
    rng: generator of the image.
    share: share of images that are degraded; the others are clean.
  """
  if rng.random() >= share:
    return CLEAN
  blurs, is_noisy, is_jpeg = rng.random(3) >= LEFT_OUT
  return Degradation(
    blur=rng.uniform(0.0, MOST_BLUR) if blurs else 0.0,
    noise=rng.uniform(0.0, MOST_NOISE) if is_noisy else 0.0,
    quality=(
      int(rng.integers(LEAST_QUALITY, MOST_QUALITY + 1)) if is_jpeg else None
    ),
    is_poisson=bool(rng.random() < 0.5),
    is_grey=bool(rng.random() < 0.5),
  )


def levels(factor: float, degradation: Degradation) -> np.ndarray:
  """Returns the levels of an input, float32 [K], see the module's docstring."""
  quality = degradation.quality
  jpeg = 0.0 if quality is None else (100 - quality) / JPEG_UNIT
  noise = degradation.noise / NOISE_UNIT
  return np.array([np.log2(factor), noise, jpeg, degradation.blur], np.float32)


def described(degradation: Degradation) -> str:
  """Returns what a degradation did, as a list in words; '' for nothing."""
  parts = []
  if degradation.blur:
    parts.append(f'blur of {degradation.blur:.2g} pixels')
  if degradation.noise >= 0.5:
    parts.append(f'noise of {degradation.noise:.2g} grey levels')
  if degradation.quality is not None:
    parts.append(f'JPEG quality {degradation.quality}')
  return ', '.join(parts)


def parse(text: str) -> Degradation:
  """Parses 'none', or some of 'noise=3,jpeg=60,blur=0.8'.

  Args:
    text: as a user gives it. Units are those of `Degradation`.

  Raises:
    ValueError: it is something else, or stronger than what networks learn.
  """
  if text == 'none':
    return CLEAN
  most = {
    'noise': (0.0, MOST_NOISE),
    'jpeg': (LEAST_QUALITY, 100),
    'blur': (0.0, MOST_BLUR),
  }
  found = {}
  for part in text.split(','):
    name, _, value = part.partition('=')
    try:
      number = float(value)
      low, high = most[name]
    except (KeyError, ValueError):
      raise ValueError(
        f'{text!r} is no damage; give none, or some of noise=SIGMA (grey '
        'levels), jpeg=QUALITY and blur=SIGMA (pixels) with commas between, '
        'such as noise=3,jpeg=60.'
      ) from None
    if not low <= number <= high:
      raise ValueError(
        f'{part}: networks learn {name} from {low:g} to {high:g}; give a '
        'number in this range.'
      )
    found[name] = number
  quality = found.get('jpeg', 100)
  return Degradation(
    blur=found.get('blur', 0.0),
    noise=found.get('noise', 0.0),
    quality=None if quality == 100 else round(quality),
  )


def shrink(
  image: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """Shrinks an image by a filter that is drawn.

  Args:
    image: uint8 [S, S, 3].
    size: h, pixels.
    rng: generator of the image.

  Returns:
    uint8 [h, h, 3].
  """
  name = str(rng.choice(list(FILTERS), p=list(FILTERS.values())))
  sigma = round(float(rng.uniform(*GAUSSIAN_SIGMA)), 2)
  return shrink_by(name, image, size, sigma=sigma)


def shrink_by(
  name: str, image: np.ndarray, size: int, *, sigma: float = 0.4
) -> np.ndarray:
  """Shrinks an image by one of `FILTERS`.

  Args:
    name: the filter.
    image: uint8 [S, S, 3].
    size: h, pixels.
    sigma: of 'gaussian', low-res pixels.

  Returns:
    uint8 [h, h, 3]; all filters leave the middle of the image in its place.
  """
  length = image.shape[0]
  if length == size:
    return image
  if name in ('bicubic', 'lanczos'):
    resample = Image.Resampling[name.upper()]
    return np.asarray(Image.fromarray(image).resize((size, size), resample))
  if name == 'area':
    return transforms.area_resize(image, (size, size))
  width = sigma if name == 'gaussian' else None
  weights = _weights(length, size, width)
  x = np.tensordot(weights, image.astype(np.float32), (1, 0))  # [h, S, 3]
  return to_uint8(np.tensordot(x, weights, (1, 1)).transpose(0, 2, 1))


@functools.lru_cache(maxsize=512)
def _weights(length: int, size: int, sigma: float | None) -> np.ndarray:
  """Returns float32 [h, S], weights of pixels reflected at the border.

  Args:
    length, size: S and h.
    sigma: of a Gaussian, in low-res pixels; None is bicubic, a = -0.5.
  """
  scale = length / size
  reach = 2.0 if sigma is None else 4 * sigma
  centers = (np.arange(size) + 0.5) * scale
  taps = np.arange(-int(reach * scale) - 2, length + int(reach * scale) + 2)
  d = np.abs(taps + 0.5 - centers[:, None]) / scale
  if sigma is None:
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    kernel = np.where(d < 1.0, near, np.where(d < 2.0, far, 0.0))
  else:
    kernel = np.exp(-0.5 * (d / sigma) ** 2) * (d <= reach)
  kernel /= kernel.sum(axis=1, keepdims=True)
  # The border pixel is repeated, as in MATLAB.
  source = np.mod(taps, 2 * length)
  source = np.minimum(source, 2 * length - 1 - source)
  weights = np.zeros((size, length))
  for row in range(size):
    np.add.at(weights[row], source, kernel[row])
  weights = weights.astype(np.float32)
  weights.setflags(write=False)  # the cache shares it among all callers
  return weights


def degrade(
  low: np.ndarray, degradation: Degradation, rng: np.random.Generator
) -> np.ndarray:
  """Blurs an image, adds noise, and compresses it.

  Args:
    low: uint8 [h, w, 3].
    degradation: how much of each.
    rng: draws the noise.

  Returns:
    uint8 [h, w, 3].
  """
  if degradation.blur or degradation.noise:
    x = low.astype(np.float32)
    if degradation.blur:
      sigma = (degradation.blur, degradation.blur, 0.0)
      x = ndimage.gaussian_filter(x, sigma, mode='mirror', truncate=3.0)
    if degradation.noise:
      channels = 1 if degradation.is_grey else 3
      noise = rng.standard_normal((*x.shape[:2], channels), np.float32)
      if degradation.is_poisson:
        noise = noise * np.sqrt(np.clip(x, 0.0, 255.0) / 127.5)
      x = x + np.float32(degradation.noise) * noise
    low = to_uint8(x)
  if degradation.quality is not None:
    low = _jpeg(low, degradation.quality)
  return low


def to_uint8(x: np.ndarray) -> np.ndarray:
  """Clips grey levels and rounds them half up."""
  return np.floor(np.clip(x, 0.0, 255.0) + 0.5).astype(np.uint8)


def _jpeg(image, quality):
  """Encodes and decodes an image as a baseline JPEG, 4:2:0 chroma."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=quality, subsampling=2)
  return np.asarray(Image.open(file))
