"""Provides a source of real photographs, cropped, that needs no download.

The photographs are part of scikit-image's wheel. Each photograph is a class,
and its images are random crops, each drawn from its index alone. Every
photograph is cut into two parts across its longer side, at a place that depends
on the photograph's size alone: the left (or upper) part is for training, the
rest is held out. Each part is shrunk on its own, so no pixel of the original
reaches both.
"""

import functools
import hashlib
import importlib.util
import pathlib
from collections.abc import Iterable

import numpy as np

from cdm.data import image_decoder, shell_commands, transforms
from cdm.data.source import Element

# The name of each file in skimage/data, and its terms of use as scikit-image's
# documentation (skimage.data, 0.26) states them.
LICENCES = {
  'astronaut.png': 'NASA Great Images, public domain',
  'brick.png': 'CC0Textures (Bricks25), CC0',
  'camera.png': 'Lav Varshney, CC0',
  'chelsea.png': 'Stefan van der Walt, CC0',
  'coffee.png': 'Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0',
  'coins.png': 'Brooklyn Museum Collection, no known copyright restrictions',
  'grass.png': 'linolafett (DeviantArt, Grass 01), CC0',
  'gravel.png': 'CC0Textures (Gravel04), CC0',
  'hubble_deep_field.jpg': 'NASA, HubbleSite 2012/37, public domain',
  'ihc.png': 'Center for Microscopy and Molecular Imaging (CMMI), no known '
  'copyright restrictions',
  'moon.png': 'no terms stated, part of the scikit-image distribution',
  'retina.jpg': 'Mikael Häggström, CC0 / public domain',
  'rocket.jpg': 'SpaceX, public domain',
}
NAMES = tuple(pathlib.PurePath(file).stem for file in LICENCES)
SPLITS = ('train', 'held_out')

_FILES = dict(zip(NAMES, LICENCES, strict=True))
# A third of the longer side is held out. If a third has fewer pixels than this
# (crops of 64 pixels at shrink 3), the held-out part is this wide, but at most
# half of the photograph.
_HELD_OUT_PIXELS = 192
# A nearly constant crop (the black around the retina, an empty stretch of sky)
# is drawn again: a network learns nothing from it, and it scores infinitely
# well. At least one channel must have this standard deviation, in grey levels.
_LEAST_SPREAD = 3.0
_DRAWS = 16  # After so many draws, the last is taken even if nearly constant.


class Photographs:
  """A source of crops of photographs; crop i has label i % num_classes."""

  def __init__(
    self,
    split: str = 'train',
    image_size: int = 32,
    shrink: int = 3,
    crops_per_class: int = 4096,
    names: Iterable[str] | None = None,
    seed: int = 0,
  ):
    """Checks that every photograph is there and large enough.

    Args:
      split: 'train' or 'held_out'. The two share no pixel, even if their other
        arguments differ.
      image_size: side of a crop, pixels after shrinking.
      shrink: each photograph is first averaged over blocks of this side,
        pixels.
      crops_per_class: number of crops of each photograph in one epoch.
      names: the photographs, in the order of their labels; None is all.
      seed: another seed gives other crops.

    Raises:
      ValueError: the split or a name is unknown, scikit-image is missing, or a
        part of a photograph is too small for such crops.
    """
    if split not in SPLITS:
      raise ValueError(f'split is {split!r}; known splits are {SPLITS}.')
    for name, value, least in (
      ('image_size', image_size, 1),
      ('shrink', shrink, 1),
      ('crops_per_class', crops_per_class, 1),
      ('seed', seed, 0),
    ):
      if value < least:
        raise ValueError(f'{name} is {value}; it must be at least {least}.')
    self.class_names = NAMES if names is None else tuple(names)
    unknown = [name for name in self.class_names if name not in NAMES]
    if unknown or not self.class_names:
      raise ValueError(
        f'names is {self.class_names}, of which {unknown} are unknown; known '
        f'photographs are {NAMES}.'
      )
    self.split, self.image_size, self.shrink = split, image_size, shrink
    self.crops_per_class, self.seed = crops_per_class, seed
    self.num_classes = len(self.class_names)
    for name in self.class_names:
      self._check_room(name)

  def _check_room(self, name):
    height, width = region(name, self.split, self.shrink).shape[:2]
    if min(height, width) < self.image_size:
      raise ValueError(
        f'The {self.split} part of {name!r}, shrunk by {self.shrink}, has '
        f'{width}x{height} pixels: too small for crops of {self.image_size}. '
        f'Use a smaller image_size or shrink, or leave {name!r} out of names.'
      )

  def __len__(self) -> int:
    return self.num_classes * self.crops_per_class

  @property
  def fingerprint(self) -> str:
    """A hash of the photographs' pixels and of all arguments."""
    digest = hashlib.sha256()
    for name in self.class_names:
      digest.update(region(name, self.split, self.shrink).tobytes())
    made_from = (self.image_size, self.shrink, self.crops_per_class, self.seed)
    digest.update(repr((self.split, self.class_names, made_from)).encode())
    return f'photographs:{digest.hexdigest()[:16]}'

  def __getitem__(self, i: int) -> Element:
    """Returns crop i; its image is uint8 [S, S, 3]."""
    if not 0 <= i < len(self):
      raise IndexError(f'crop {i} of {len(self)}')
    label = i % self.num_classes
    part = region(self.class_names[label], self.split, self.shrink)
    rng = np.random.default_rng((self.seed, SPLITS.index(self.split), i))
    for _ in range(_DRAWS):
      top, left = rng.integers(np.array(part.shape[:2]) - self.image_size + 1)
      crop = part[top : top + self.image_size, left : left + self.image_size]
      if crop.std(axis=(0, 1)).max() >= _LEAST_SPREAD:
        break
    return {
      'image': np.ascontiguousarray(crop),
      'label': np.int32(label),
      'short_side': np.int32(self.image_size),
    }


# The cache matters: decoding takes longer than drawing a thousand crops.
@functools.cache
def region(name: str, split: str, shrink: int) -> np.ndarray:
  """Returns the part of a photograph that belongs to a split, shrunk.

  Args:
    name: one of `NAMES`.
    split: one of `SPLITS`.
    shrink: side of the blocks that are averaged, pixels.

  Returns:
    uint8 [H // shrink, W // shrink, 3], where the part has H x W pixels. The
    channels of a grey photograph are equal.
  """
  photograph = _photograph(name)
  if photograph.shape[0] > photograph.shape[1]:
    return _along_width(photograph.swapaxes(0, 1), split, shrink).swapaxes(0, 1)
  return _along_width(photograph, split, shrink)


def _along_width(photograph, split, shrink):
  width = photograph.shape[1]
  held_out = max(width // 3, min(_HELD_OUT_PIXELS, width // 2))
  cut = width - held_out
  part = photograph[:, :cut] if split == 'train' else photograph[:, cut:]
  h, w = part.shape[0] // shrink, part.shape[1] // shrink
  if h < 1 or w < 1:
    return np.zeros((h, w, 3), np.uint8)
  return transforms.area_resize(part[: h * shrink, : w * shrink], (h, w))


def path(name: str) -> pathlib.Path:
  """Returns the path of a photograph inside scikit-image's wheel.

  Args:
    name: one of `NAMES`.

  Raises:
    ValueError: scikit-image is not installed.
  """
  spec = importlib.util.find_spec('skimage')  # finds it without importing it
  if spec is None or spec.origin is None:
    raise ValueError(
      'The sample photographs are part of scikit-image, which is not '
      f'installed. Run: {shell_commands.install("scikit-image")}'
    )
  return pathlib.Path(spec.origin).parent / 'data' / _FILES[name]


@functools.cache
def _photograph(name):
  file = path(name)
  try:
    data = file.read_bytes()
  except FileNotFoundError as error:
    raise ValueError(
      f'{file} is missing: this scikit-image has no photograph {name!r}. '
      'Install one that has. Run: '
      f'{shell_commands.install("scikit-image==0.26.0")}'
    ) from error
  return image_decoder.decode(data, name=str(file)).pixels
