"""A source of squares of photographs, with low-res images that may be degraded.

  photograph --shrink 1.5 to 4, by area--> sharp --cut S x S--> flip, turn
                                                       |
                       low-res image <--shrink, degrade-+

Photographs are soft at their full size, and a network that learns from them
learns to leave softness alone. So each square is cut out of a photograph that
was shrunk first. Of squares that are flat, most are passed over.

Every draw for image i depends on (seed, i) alone.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from cdm.data import (
  decoded_pictures,
  drawn_pictures,
  low_res_inputs,
  transforms,
)
from cdm.data.source import Element

# A square with a lower contrast is flat, grey levels: the median of squares of
# 45 photographs, mostly of nature, that were shrunk so.
_FLAT = 3.7
_FLAT_KEPT = 0.1  # share of the flat squares that are taken nevertheless
_TRIES = 12  # squares that are looked at, at most
# Share of images whose low-res size is any whole number, not that of a factor.
_ANY_FACTOR = 0.2


class PhotoCrops:
  """Squares of photographs and of drawn pictures, with low-res inputs.

  An element also has `inputs`, see `input_shapes`.
  """

  def __init__(
    self,
    path: str,
    image_size: int = 128,
    num_images: int = 1_000_000,
    seed: int = 0,
    shrinks: Sequence[float] = (1.5, 2.0, 3.0, 4.0),
    factors: Sequence[float] = (4.0, 4.0, 4.0, 3.0, 2.0, 1.5, 1.0),
    drawn: float = 0.1,
    degraded: float = 0.5,
  ):
    """Decodes the photographs, unless an earlier call did.

    Args:
      path: folder of the photographs; those in folders below it count too.
      image_size: S, pixels.
      num_images: number of images in one epoch; each is another square.
      seed: another seed gives other squares.
      shrinks: factors by which photographs are shrunk first; of those that
        leave S pixels, each is as likely as another.
      factors: how many times smaller a low-res image is, each as likely as
        another. A fifth of the images have any size in this range instead.
      drawn: share of images that are not of photographs, see `drawn_pictures`.
      degraded: share of low-res images that are blurred, noisy or compressed.

    Raises:
      ValueError: a number is out of range, or no photograph is large enough.
      transforms.BadImage: a photograph cannot be read.
    """
    _check(image_size, num_images, seed, {'drawn': drawn, 'degraded': degraded})
    for name, values in (('shrinks', shrinks), ('factors', factors)):
      if not values or min(values) < 1.0 or max(values) > 16.0:
        raise ValueError(
          f'{name} is {tuple(values)}; give one or more numbers from 1 to 16.'
        )
    self.image_size, self.num_images, self.seed = image_size, num_images, seed
    self.num_classes = 0
    self.class_names: tuple[str, ...] = ()
    self._shrinks, self._factors = tuple(shrinks), tuple(factors)
    self._drawn, self._degraded = drawn, degraded
    decoded = decoded_pictures.decode(path)
    self._path, self._decoded = path, decoded
    self._open()

  def _open(self):
    """Maps the photographs; those that are too small are left out."""
    least = round(self.image_size * min(self._shrinks))
    self._photos = [
      photo
      for photo in self._decoded.pictures()
      if min(photo.shape[:2]) >= least
    ]
    if not self._photos:
      raise ValueError(
        f'No photograph in {self._path!r} has a short side of {least} pixels, '
        f'which a square of image_size={self.image_size} needs that is shrunk '
        f'by {min(self._shrinks)} first. Give larger photographs, or smaller '
        'numbers in shrinks.'
      )
    if left_out := len(self._decoded.shapes) - len(self._photos):
      logging.info(
        '%d photographs in %s are smaller than %d pixels and are left out.',
        *(left_out, self._path, least),
      )
    areas = np.array([p.shape[0] * p.shape[1] for p in self._photos], float)
    self._until = np.cumsum(areas) / areas.sum()

  def __getstate__(self):
    """Leaves the pixels out, which every process maps by itself."""
    state = self.__dict__.copy()
    del state['_photos'], state['_until']
    return state

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._open()

  @staticmethod
  def input_shapes(image_size: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Returns {name: (shape, dtype)} of what an element's `inputs` hold.

    'lowres' is an image whose top left corner is the low-res image, of
    'lowres_size' pixels; 'levels' are those of `low_res_inputs`.

    Args:
      image_size: S, pixels.
    """
    return {
      'lowres': ((image_size, image_size, 3), np.uint8),
      'lowres_size': ((), np.int32),
      'levels': ((len(low_res_inputs.LEVELS),), np.float32),
    }

  def __len__(self) -> int:
    return self.num_images

  @property
  def fingerprint(self) -> str:
    """A hash of all arguments, and of the names and sizes of photographs."""
    made_from = (
      *(self.image_size, self.num_images, self.seed, self._shrinks),
      *(self._factors, self._drawn, self._degraded),
      *(self._decoded.names, self._decoded.shapes),
    )
    digest = hashlib.sha256(repr(made_from).encode(errors='surrogateescape'))
    return f'photo_crops:{digest.hexdigest()[:16]}'

  def __getitem__(self, i: int) -> Element:
    """Returns image i, uint8 [S, S, 3], with its low-res input."""
    if not 0 <= i < self.num_images:
      raise IndexError(f'image {i} of {self.num_images}')
    rng = np.random.default_rng((self.seed, i))
    if rng.random() < self._drawn:
      image = drawn_pictures.draw(self.image_size, rng)
    else:
      image = self._crop(rng)
    image = _turned(image, int(rng.integers(8)))
    return {
      'image': image,
      'label': np.int32(0),
      'short_side': np.int32(self.image_size),
      'inputs': self._inputs(image, rng),
    }

  def _crop(self, rng):
    """Returns a square of a photograph that is shrunk; mostly no flat one."""
    for _ in range(_TRIES):
      photo = self._photos[self._place(rng.random())]
      fitting = [
        side
        for side in (round(self.image_size * s) for s in self._shrinks)
        if side <= min(photo.shape[:2])
      ]
      side = int(rng.choice(fitting))
      top, left = (int(rng.integers(n - side + 1)) for n in photo.shape[:2])
      square = np.asarray(photo[top : top + side, left : left + side])
      size = (self.image_size, self.image_size)
      image = transforms.area_resize(square, size)
      if contrast(image) >= _FLAT or rng.random() < _FLAT_KEPT:
        break
    return image

  def _place(self, u):
    """Returns the index of a photograph; a larger one is likelier."""
    return min(int(np.searchsorted(self._until, u)), len(self._photos) - 1)

  def _inputs(self, image, rng):
    """Returns what `input_shapes` says, of an image."""
    size = image.shape[0]
    if rng.random() < _ANY_FACTOR:
      low, high = (round(size / f) for f in (max(self._factors), 1.0))
      small = int(rng.integers(low, high + 1))
    else:
      small = round(size / float(rng.choice(self._factors)))
    small = max(1, small)
    degradation = low_res_inputs.draw(rng, self._degraded)
    low = low_res_inputs.shrink(image, small, rng)
    low = low_res_inputs.degrade(low, degradation, rng)
    canvas = np.zeros_like(image)
    canvas[:small, :small] = low
    return {
      'lowres': canvas,
      'lowres_size': np.int32(small),
      'levels': low_res_inputs.levels(size / small, degradation),
    }


def contrast(image: np.ndarray) -> float:
  """Returns the mean difference of neighbours in green, grey levels."""
  green = image[..., 1].astype(np.int16)
  down, right = (np.abs(np.diff(green, axis=axis)).mean() for axis in (0, 1))
  return float(down + right) / 2


def _turned(image, number):
  """Returns one of the eight flips and turns of a square, a copy."""
  image = np.rot90(image, number % 4)
  return np.ascontiguousarray(image[:, ::-1] if number >= 4 else image)


def _check(image_size, num_images, seed, shares):
  """Raises ValueError if a number is out of range."""
  for name, value, least, most in (
    ('image_size', image_size, 8, transforms.MOST_PIXELS),
    ('num_images', num_images, 1, 2**40),
    ('seed', seed, 0, 2**63),
    *((name, value, 0.0, 1.0) for name, value in shares.items()),
  ):
    if not least <= value <= most:
      raise ValueError(
        f'{name} is {value}; it must be from {least} to {most:,}.'
      )
