"""Degrades low-res inputs by noise, blur, JPEG and the like, at known strength.

  noise       x + sigma n,  n ~ N(0, 1) per value        sigma, grey levels
  blur        G_sigma * x, the border reflected          sigma, low-res pixels
  jpeg        decoded from its JPEG file, chroma 4:2:0   quality, 1 to 100
  brightness  x + b                                      b, grey levels
  contrast    127.5 + f (x - 127.5)                      f, a factor
  kernel      another downsampling of the original       a filter

Images are uint8 before and after: results are clipped, then rounded half up.
The noise depends only on the seed and the index of the image, and is the same
field at every strength. From a noisy, blurred, compressed or otherwise
shrunk input, a super-resolution stage should still restore the original. An
input with another brightness or contrast should be magnified with that change
kept, so `undo` removes the change from the result before it is compared with
the original.
"""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from cdm.ops import resize

Strength = Any  # a float; for 'kernel' the name of a filter
TRUNCATE = 4.0  # half-width of the blur's kernel, in sigmas


class Degradation(NamedTuple):
  """A kind of degradation.

  Attributes:
    title: name of the degradation in a heading.
    axis: quantity and unit of its strength, the label of an axis.
    phrase: format string for one strength, such as 'sigma {} grey levels'.
    values: the default strengths, five of increasing effect; for 'kernel' the
      names of all `FILTERS`.
    valid: `(strength) -> bool`, whether the strength can be used.
    expected: what `valid` accepts, in words for an error message.
    photometric: True if `undo` can remove the degradation from the result.
  """

  title: str
  axis: str
  phrase: str
  values: tuple[Strength, ...]
  valid: Callable[[Strength], bool]
  expected: str
  photometric: bool = False


# The strengths are our own choice, from barely visible to severe.
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
# Arguments of `resize.resize_uint8` for each filter of 'kernel'.
FILTERS: dict[str, dict] = {
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


def degrade(
  name: str,
  value: Strength,
  *,
  low: np.ndarray,
  original: np.ndarray,
  seed: int,
  number: int,
) -> np.ndarray:
  """Returns the degraded low-res input of one image.

  Args:
    name: a key of `KINDS`.
    value: the strength, in the unit that the module's docstring gives.
    low: uint8 [h, w, 3], the clean low-res image.
    original: uint8 [H, W, 3], the image that `low` was made from.
    seed: seed of the noise.
    number: index of the image, at least 0.

  Returns:
    uint8 [h, w, 3].

  Raises:
    ValueError: the degradation is unknown, or its strength is out of range.
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


def undo(name: str, value: Strength, image: np.ndarray) -> np.ndarray:
  """Removes a change of brightness or contrast from a super-resolved image.

  Args:
    name, value: the degradation of the input, as in `degrade`.
    image: uint8 [H, W, 3], super-resolved from the degraded input.

  Returns:
    uint8 [H, W, 3], to be compared with the original; values that were clipped
    stay lost. For every other degradation it is the image unchanged.
  """
  check(name, value)
  if name == 'brightness':
    return photometric(name, -value, image)
  if name == 'contrast':
    return photometric(name, 1.0 / value, image)
  return image


def noise_field(shape: Sequence[int], seed: int, number: int) -> np.ndarray:
  """Returns float64 standard normal values, the same for every strength."""
  return np.random.default_rng((seed, number)).standard_normal(shape)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
  """Blurs an image with a Gaussian that is sampled at whole pixels.

  The image is reflected at its border without repeating the border pixel.

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


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
  """Encodes and decodes uint8 [H, W, 3] as a baseline JPEG, 4:2:0 chroma."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=quality, subsampling=2)
  return np.asarray(Image.open(file))


def photometric(name: str, value: float, image: np.ndarray) -> np.ndarray:
  """Changes the brightness or contrast of an image, uint8 -> uint8."""
  if name == 'brightness':
    return _to_uint8(image + value)
  return _to_uint8(127.5 + value * (np.asarray(image, np.float64) - 127.5))


def _to_uint8(levels):
  return np.floor(np.clip(levels, 0.0, 255.0) + 0.5).astype(np.uint8)


def check(name: str, value: Strength) -> None:
  """Raises ValueError unless the degradation exists and allows the strength."""
  if name not in KINDS:
    raise ValueError(
      f'There is no degradation {name!r}; known are {", ".join(KINDS)}.'
    )
  kind = KINDS[name]
  if not kind.valid(value):
    raise ValueError(
      f'{name} cannot have the strength {value}; give {kind.expected}.'
    )


def parse(words: Sequence[str], *, own: str) -> dict[str, tuple[Strength, ...]]:
  """Parses the degradations and strengths given on the command line.

  Args:
    words: each is 'NAME' or 'NAME=V,V,...'; no words means every degradation.
    own: the downsampling filter that the stage was trained with. It is not
      among the default values of 'kernel', because it makes the clean input.

  Returns:
    {name: (value, ...)}.

  Raises:
    ValueError: a name or value is unknown, or given twice.
  """
  parsed = {}
  for word in words or tuple(KINDS):
    name, equals, text = word.partition('=')
    if name in parsed:
      raise ValueError(
        f'--degrade names {name} twice; give all of its values together.'
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
    parsed[name] = values
  return parsed


def _value(name, text):
  if name == KERNEL:
    return text
  try:
    return float(text)
  except ValueError:
    raise ValueError(
      f'--degrade: {text!r} is not a strength of {name}; give '
      f'{KINDS[name].expected}.'
    ) from None


@functools.cache
def format_strength(value: Strength) -> str:
  """Returns a strength as text: '0.8', '10', 'nearest'."""
  return value if isinstance(value, str) else f'{value:g}'
