"""Real photographs that need no download: those inside scikit-image's wheel.

A class is a photograph; an image is a crop of it, drawn from its index alone.
Every photograph is cut once, across its longer side, and the cut depends on
nothing but its size: the left (or upper) part trains, the rest is held out.
Each part is shrunk on its own, so no pixel of the original reaches both.
"""

import functools
import hashlib
import importlib.util
import pathlib

import numpy as np

from cdm.data import transforms

# Name of the file in skimage/data, and its terms as scikit-image's
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
# Held out: a third, but where that is too thin for crops of 64 pixels at
# shrink 3, what these need, up to a half.
_HELD_OUT_PIXELS = 192
# A crop of next to nothing (the black around the retina, an empty stretch of
# sky) is drawn again: it teaches nothing, and scores infinitely well.
_LEAST_SPREAD = 3.0  # grey levels, standard deviation of some channel
_DRAWS = 16


class Photographs:
  """Crops of the embedded photographs; crop i has label i % num_classes."""

  def __init__(
    self,
    split='train',
    image_size=32,
    shrink=3,
    crops_per_class=4096,
    names=None,
    seed=0,
  ):
    """Opens the photographs.

    Args:
      split: 'train' or 'held_out'; they share no pixel, whatever the other
        arguments of the two are.
      image_size: side of a crop, pixels after shrinking.
      shrink: each photograph is first averaged over blocks of this side.
      crops_per_class: how many crops of each photograph count as one epoch.
      names: which photographs, in the order of their labels; None is all.
      seed: another seed, other crops.

    Raises:
      ValueError: unknown split or name, scikit-image missing, or a part too
        small for such crops.
    """
    if split not in SPLITS:
      raise ValueError(f'split is {split!r}; known splits are {SPLITS}.')
    for name, value in (
      ('image_size', image_size),
      ('shrink', shrink),
      ('crops_per_class', crops_per_class),
    ):
      if value < 1:
        raise ValueError(f'{name} is {value}; it must be at least 1.')
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
        f'Use a smaller image_size or shrink, or leave it out of names.'
      )

  def __len__(self):
    return self.num_classes * self.crops_per_class

  @property
  def fingerprint(self):
    digest = hashlib.sha256()
    for name in self.class_names:
      digest.update(region(name, self.split, self.shrink).tobytes())
    made_from = (self.image_size, self.shrink, self.crops_per_class, self.seed)
    digest.update(repr((self.split, self.class_names, made_from)).encode())
    return f'photographs:{digest.hexdigest()[:16]}'

  def __getitem__(self, i):
    """-> image: uint8 [S, S, 3], label: int32, short_side: int32."""
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


@functools.cache  # Decoding takes longer than a thousand crops.
def region(name, split, shrink):
  """The part of a photograph that a split may see, shrunk.

  Returns:
    [H // shrink, W // shrink, 3] uint8; grey photographs have equal channels.
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


@functools.cache
def _photograph(name):
  spec = importlib.util.find_spec('skimage')  # found, but not imported
  if spec is None:
    raise ValueError(
      'The embedded photographs are part of scikit-image, which is not '
      'installed. Run: pip install scikit-image'
    )
  path = pathlib.Path(spec.origin).parent / 'data' / _FILES[name]
  try:
    data = path.read_bytes()
  except FileNotFoundError as error:
    raise ValueError(
      f'{path} is missing: this scikit-image has no photograph {name!r}. '
      f'Install one that ships its data, e.g. scikit-image 0.26.'
    ) from error
  return transforms.decode(data, name=str(path))
