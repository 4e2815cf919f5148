"""Reads which part of a face every pixel shows, from a folder of maps.

The folder has a grey PNG for every picture, whose values are the numbers of the
parts; or, as CelebAMask-HQ is distributed, a black and white PNG for every part
of a picture: 0/00000_hair.png, 0/00000_l_eye.png, ..., 14/29999_skin.png. Where
two of these cover a pixel, it shows the part of the higher number. That is what
CelebAMask-HQ's own g_mask.py makes of them, which numbers the parts as here.
"""

import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from cdm.data import folder_index, image_decoder
from cdm.data.printable_name import printable
from cdm.data.transforms import UnusableImage

# Those of CelebAMask-HQ; l_ and r_ are the sides, but l_lip is the lower lip.
PARTS = (
  *('background', 'skin', 'nose', 'eye_g', 'l_eye', 'r_eye', 'l_brow'),
  *('r_brow', 'l_ear', 'r_ear', 'mouth', 'u_lip', 'l_lip', 'hair', 'hat'),
  *('ear_r', 'neck_l', 'neck', 'cloth'),
)
_SUFFIX = '.png'
_MASK = re.compile(r'(?P<stem>(.*/)?(?P<number>\d+))_(?P<part>[a-z_]+)\.png')


class ParsingFolder:
  """The maps of parts that belong to the pictures of a source.

  Attributes:
    names: the names of the parts 0, 1, 2, ...
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    files: Sequence[str],
    names: Iterable[str] = PARTS,
  ):
    """Lists the folder, and finds what belongs to each picture.

    Args:
      path: the folder.
      files: the paths of the pictures, with forward slashes. A map of parts has
        the path of its picture, or its name, with the suffix .png. The masks of
        CelebAMask-HQ are found by the number that a picture has for a name.
      names: of the parts 0, 1, 2, ...; masks of other parts are not read.

    Raises:
      ValueError: there is no such folder, or nothing in it for a picture.
    """
    self.names = tuple(names)
    self._path = os.path.expanduser(path)
    shown = f'the folder {printable(self._path)}'
    if not os.path.isdir(self._path):
      raise ValueError(f'{shown} is not there. Give the folder of the maps.')
    if not 2 <= len(set(self.names)) == len(self.names) <= 256:
      raise ValueError(
        f'parts has the {len(self.names)} names {self.names}; give 2 to 256 '
        'different ones.'
      )
    listing, _ = folder_index.list_pictures(self._path)
    maps = [name for name in listing.files if name.endswith(_SUFFIX)]
    masks = [found for name in maps if (found := _MASK.fullmatch(name))]
    known = {found['part'] for found in masks} & {*self.names}
    # For every picture, the path of its map and 0; or the beginning of the
    # paths of its masks, and a bit for each.
    self._entries = (
      self._by_number(masks, files) if known else _by_name(maps, files)
    )
    for file, entry in zip(files, self._entries, strict=True):
      if entry is None:
        raise ValueError(
          f'{shown} has no map of {printable(file)}: it has {len(maps):,} PNGs '
          f'for {len(files):,} pictures. Give every picture a map.'
        )

  def _by_number(self, masks, files):
    """Returns the entries of pictures that have a mask for every part."""
    bits = {name: 1 << n for n, name in enumerate(self.names)}
    stems: dict[int, str] = {}
    present: dict[int, int] = {}
    for found in masks:
      number = int(found['number'])
      stem = stems.setdefault(number, found['stem'])
      if stem == found['stem']:
        bit = bits.get(found['part'], 0)
        present[number] = present.get(number, 0) | bit
    entries = []
    for file in files:
      stem = os.path.splitext(file)[0].rpartition('/')[2]
      number = int(stem) if stem.isdecimal() else -1
      has = number in stems and present[number]
      entries.append((stems[number], present[number]) if has else None)
    return entries

  def read(self, i: int) -> np.ndarray:
    """Returns the number of the part of every pixel, uint8 [H, W].

    Raises:
      transforms.BadImage: the map cannot be read, or is no map of these parts.
    """
    entry, masks = self._entries[i]
    if not masks:
      return self._numbers(entry)
    present = [n for n in range(len(self.names)) if masks >> n & 1]
    whole = np.zeros(())
    for n in present:
      file = f'{entry}_{self.names[n]}{_SUFFIX}'
      mask = self._grey(file)
      if n == present[0]:
        whole = np.zeros_like(mask)
      if mask.shape != whole.shape:
        raise UnusableImage(
          self._name(file), 'it has another size than the masks beside it'
        )
      whole[mask > 0] = n
    return whole

  def _numbers(self, file):
    numbers = self._grey(file)
    if numbers.max() >= len(self.names):
      raise UnusableImage(
        self._name(file),
        f'it has the number {numbers.max()}, and the {len(self.names)} parts '
        f'are 0 to {len(self.names) - 1}; give the names of all as parts',
      )
    return numbers

  def _grey(self, file):
    """Returns the values of a grey PNG, uint8 [H, W]."""
    path = self._name(file)
    pixels, notes = image_decoder.read_file(path, exif_rotation=False)
    if any(note.kind in ('alpha', 'dark') for note in notes) or not (
      (pixels == pixels[:, :, :1]).all()
    ):
      raise UnusableImage(
        path, 'it is not grey of 8 bits, whose values number the parts'
      )
    return pixels[:, :, 0].copy()

  def _name(self, file):
    return os.path.join(self._path, file)


def _by_name(maps, files):
  """Returns the entries of pictures that have one map each."""
  by_path = {name.removesuffix(_SUFFIX): name for name in maps}
  by_name: dict[str, str | None] = {}
  for stem, name in by_path.items():
    last = stem.rpartition('/')[2]
    by_name[last] = None if last in by_name else name  # None: several have it
  entries = []
  for file in files:
    stem = os.path.splitext(file)[0]
    found = by_path.get(stem) or by_name.get(stem.rpartition('/')[2])
    entries.append((found, 0) if found else None)
  return entries
