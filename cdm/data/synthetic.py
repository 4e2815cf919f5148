"""Computes a source of synthetic images, for smoke runs and tests."""

import hashlib

import numpy as np

from cdm.data import transforms
from cdm.data.source import Element

MOST_CLASSES = 100_000  # Every class has a name.


class Synthetic:
  """Noisy gratings whose direction and colour depend on the class.

  Image i is computed from seed and i, so it is the same on every machine and in
  every process. Its label is i % num_classes.
  """

  def __init__(
    self,
    image_size: int = 32,
    num_images: int = 1024,
    num_classes: int = 4,
    seed: int = 0,
  ):
    """Sets the properties of the images.

    Args:
      image_size: S, pixels.
      num_images: number of images in one epoch.
      num_classes: number of labels.
      seed: another seed gives other phases and noise.

    Raises:
      ValueError: a number is out of range.
    """
    for name, value, least in (
      ('image_size', image_size, 1),
      ('num_images', num_images, 1),
      ('num_classes', num_classes, 1),
      ('seed', seed, 0),
    ):
      if value < least:
        raise ValueError(f'{name} is {value}; it must be at least {least}.')
    for name, value, most in (
      ('image_size', image_size, transforms.MOST_PIXELS),
      ('num_classes', num_classes, MOST_CLASSES),
    ):
      if value > most:
        raise ValueError(f'{name} is {value}; it must be at most {most}.')
    self.image_size, self.num_images = image_size, num_images
    self.num_classes, self.seed = num_classes, seed
    self.class_names = tuple(f'grating {c}' for c in range(num_classes))

  def __len__(self) -> int:
    return self.num_images

  @property
  def fingerprint(self) -> str:
    """A hash of all arguments."""
    made_from = (self.image_size, self.num_images, self.num_classes, self.seed)
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()
    return f'synthetic:{digest[:16]}'

  def __getitem__(self, i: int) -> Element:
    """Returns image i, uint8 [S, S, 3], with its label."""
    if not 0 <= i < self.num_images:
      raise IndexError(f'image {i} of {self.num_images}')
    rng = np.random.default_rng((self.seed, i))
    label = i % self.num_classes
    angle = np.pi * label / self.num_classes
    y, x = np.mgrid[: self.image_size, : self.image_size] / self.image_size
    along = x * np.cos(angle) + y * np.sin(angle)
    wave = np.sin(
      2 * np.pi * (3 * along + rng.random())
    )  # [S, S], random phase
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (angle / np.pi + np.arange(3) / 3))
    image = 127.5 + 90 * wave[..., None] * colour
    image = image + rng.normal(scale=6, size=image.shape)
    return {
      'image': np.clip(np.rint(image), 0, 255).astype(np.uint8),
      'label': np.int32(label),
      'short_side': np.int32(self.image_size),
    }
