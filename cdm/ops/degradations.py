"""Low-res inputs as a stage may get them in the world, degraded step by step.

  noise       x + sigma n,  n ~ N(0, 1) per value        sigma, grey levels
  blur        G_sigma * x, the border reflected          sigma, low-res pixels
  jpeg        decoded from its JPEG file, chroma 4:2:0   quality, 1 to 100
  brightness  x + b                                      b, grey levels
  contrast    127.5 + f (x - 127.5)                      f, a factor
  kernel      another downsampling of the original       a filter

uint8 in and out: clipped, then rounded half up. What is drawn depends on the
seed and the number of the image only, and all strengths share it. Of a noisy,
blurred, compressed or otherwise shrunk input the original is still what is
asked for. A picture that is brighter or paler is to be magnified as it is, so
the change is taken back from the result before it is compared: `undo`.
"""

import functools
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from cdm.ops import resize

TRUNCATE = 4.0  # sigmas that the blur reaches


class Degradation(NamedTuple):
  """A kind of degradation.

  Attributes:
    title: for a heading.
    axis: what a strength is, with its unit.
    phrase: the same around a strength.
    values: five strengths, rising; the set of filters of 'kernel'.
    valid: strength -> whether it can be used.
    expected: what `valid` asks for.
    photometric: `undo` takes it back.
  """

  title: str
  axis: str
  phrase: str
  values: tuple
  valid: Callable
  expected: str
  photometric: bool = False


# The strengths are ours: from hardly seen to plainly broken.
KINDS = {
  'noise': Degradation(
    'Gaussian noise',
    'noise sigma, grey levels',
    'sigma {} grey levels',
    (2.0, 5.0, 10.0, 20.0, 40.0),
    lambda v: 0.0 < v <= 255.0,
    'a sigma in grey levels, above 0 and up to 255',
  ),
  'blur': Degradation(
    'Gaussian blur',
    'blur sigma, low-res pixels',
    'sigma {} low-res pixels',
    (0.4, 0.6, 0.8, 1.2, 2.0),
    lambda v: 0.0 < v <= 64.0,
    'a sigma in low-res pixels, above 0 and up to 64',
  ),
  'jpeg': Degradation(
    'JPEG',
    'JPEG quality',
    'quality {}',
    (90.0, 70.0, 50.0, 30.0, 10.0),
    lambda v: v == round(v) and 1 <= v <= 100,
    'a whole number from 1 to 100',
  ),
  'brightness': Degradation(
    'Brightness',
    'shift, grey levels',
    'shift {} grey levels',
    (8.0, 16.0, 32.0, 48.0, 64.0),
    lambda v: v != 0.0 and abs(v) <= 255.0,
    'a shift in grey levels, from -255 to 255 and not 0',
    True,
  ),
  'contrast': Degradation(
    'Contrast',
    'contrast factor',
    'factor {}',
    (0.9, 0.75, 0.6, 0.45, 0.3),
    lambda v: v != 1.0 and 0.0 < v <= 10.0,
    'a factor above 0 and up to 10, and not 1',
    True,
  ),
}
KERNEL = 'kernel'
# Name -> arguments of `resize.resize_uint8`.
FILTERS = {
  'area': dict(method='area'),
  'bilinear': dict(method='bilinear'),
  'bicubic': dict(method='bicubic'),
  'lanczos3': dict(method='lanczos3'),
  'nearest': dict(method='nearest'),
  'aliased': dict(method='bicubic', antialias=False),
}
KINDS[KERNEL] = Degradation(
  'Another downsampling filter',
  'filter',
  '{}',
  tuple(FILTERS),
  FILTERS.__contains__,
  f'one of {", ".join(FILTERS)}',
)


def degrade(name, value, *, low, original, seed, number):
  """The degraded low-res input of one image.

  Args:
    name: of `KINDS`.
    value: strength, see the module.
    low: uint8 [h, w, 3], the clean low-res image.
    original: uint8 [H, W, 3], what it was made from.
    seed: of the noise.
    number: of the image, at least 0.

  Returns:
    uint8 [h, w, 3].

  Raises:
    ValueError: an unknown degradation, or a strength that it cannot have.
  """
  check(name, value)
  if name == 'noise':
    field = noise_field(low.shape, seed, number)
    return _to_uint8(low + value * field)
  if name == 'blur':
    return _to_uint8(blur(low, value))
  if name == 'jpeg':
    return jpeg(low, int(value))
  if name == KERNEL:
    shrunk = resize.resize_uint8(original, low.shape[:2], **FILTERS[value])
    return np.asarray(shrunk)
  return photometric(name, value, low)


def undo(name, value, image):
  """Takes a photometric change back from what was made of a changed input.

  Args:
    name, value: as `degrade`.
    image: uint8 [H, W, 3].

  Returns:
    uint8 [H, W, 3], to be compared with the original; what was clipped stays
    lost. Of other degradations the image itself.
  """
  check(name, value)
  if name == 'brightness':
    return photometric(name, -value, image)
  if name == 'contrast':
    return photometric(name, 1.0 / value, image)
  return image


def noise_field(shape, seed, number):
  """-> float64 standard normal values, the same for every strength."""
  return np.random.default_rng((seed, number)).standard_normal(shape)


def blur(image, sigma):
  """Gaussian sampled at whole pixels, reflected without the border pixel.

  Args:
    image: [H, W, C].
    sigma: standard deviation in pixels.

  Returns:
    float64 [H, W, C].
  """
  return ndimage.gaussian_filter(
    np.asarray(image, np.float64),
    (sigma, sigma, 0.0),
    mode='mirror',
    truncate=TRUNCATE,
  )


def jpeg(image, quality):
  """-> uint8 [H, W, 3], through a baseline JPEG file of 4:2:0 chroma."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=quality, subsampling=2)
  return np.asarray(Image.open(file))


def photometric(name, value, image):
  """Brightness or contrast of a picture of any size, uint8 -> uint8."""
  if name == 'brightness':
    return _to_uint8(image + value)
  return _to_uint8(127.5 + value * (np.asarray(image, np.float64) - 127.5))


def _to_uint8(levels):
  return np.floor(np.clip(levels, 0.0, 255.0) + 0.5).astype(np.uint8)


def check(name, value):
  """Raises ValueError, naming both, unless such a degradation exists."""
  if name not in KINDS:
    raise ValueError(
      f'There is no degradation {name!r}; known are {", ".join(KINDS)}.'
    )
  kind = KINDS[name]
  if not kind.valid(value):
    raise ValueError(
      f'{name} cannot have the strength {value}; it is {kind.expected}.'
    )


def parse(words, *, own):
  """What to degrade, from the command line.

  Args:
    words: ('NAME' or 'NAME=V,V,...', ...); none of them is every degradation.
    own: filter that the stage was trained with; it is not among the defaults
      of 'kernel', as it is the clean input.

  Returns:
    {name: (value, ...)}.

  Raises:
    ValueError: an unknown name or value, or one that is there twice.
  """
  found = {}
  for word in words or tuple(KINDS):
    name, equals, text = word.partition('=')
    if name in found:
      raise ValueError(
        f'--degrade names {name} twice; give its values at once.'
      )
    if name not in KINDS or not equals:
      values = KINDS[name].values if name in KINDS else (None,)
      values = tuple(v for v in values if v != own)
    else:
      values = tuple(_value(name, part) for part in text.split(','))
    for value in values:
      check(name, value)
    if len(set(values)) < len(values):
      raise ValueError(f'--degrade={word} has a strength twice.')
    found[name] = values
  return found


def _value(name, text):
  if name == KERNEL:
    return text
  try:
    return float(text)
  except ValueError:
    raise ValueError(
      f'--degrade: {text!r} is no strength of {name}; it is '
      f'{KINDS[name].expected}.'
    ) from None


@functools.cache
def told(value):
  """-> a strength as it is written: '0.8', '10', 'nearest'."""
  return value if isinstance(value, str) else f'{value:g}'
