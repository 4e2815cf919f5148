"""Recognises a folder whose subfolders are not classes but copies or splits.

Data sets are distributed with several folders side by side: training and
validation pictures, the same pictures in several sizes, pictures and masks.
Read from the folder above, splits would become classes, and held-out pictures
or masks would be trained on. Nothing in the numbers of a run would show it.
"""

import collections
import re
from collections.abc import Collection, Sequence

from cdm.data.printable_name import printable

# Folders of public data sets that no class is called.
_COPIES = frozenset({
  # FFHQ
  'images1024x1024', 'thumbnails128x128', 'in-the-wild-images',
  # CelebAMask-HQ and what its scripts make
  'CelebA-HQ-img', 'CelebAMask-HQ-mask-anno', 'CelebAMask-HQ-mask',
  'CelebAMaskHQ-mask', 'CelebAMask-HQ-mask-color',
  # CelebA
  'img_align_celeba', 'img_align_celeba_png', 'img_celeba',
})  # fmt: skip
# The folders that are meant, the first that is there.
_MEANT = ('images1024x1024', 'CelebA-HQ-img', 'img_align_celeba')
_PICTURES = frozenset('image images img imgs jpegimages'.split())
_MASKS = frozenset(
  'mask masks label labels annotation annotations segmentation '
  'segmentations segmentationclass'.split()
)
_UPSCALED = frozenset({'lowres', 'original', 'upscaled'})  # of `cdm upscale`
_TRAIN = ('train', 'training')
_HELD_OUT = (
  *('val', 'valid', 'validation', 'test', 'testing', 'dev', 'eval'),
  *('heldout', 'held_out'),
)
_SIZED = re.compile(r'(?<!\d)(\d{2,5})x\1(?!\d)')
_LEAST_SIZE = 16  # px; a brick of 2x4 is a class
_SHARED = 0.5  # of the names of two folders, beyond which they are copies


def check(path: str, files: Sequence[str], *, classes: bool) -> None:
  """Raises ValueError if a folder mixes copies or splits of its pictures.

  Args:
    path: the folder, or a zip, whose folders can be given too.
    files: the paths of its pictures, relative to it, with forward slashes.
    classes: whether its subfolders would be classes.
  """
  below, prefix = files, ''
  while below:
    names = collections.Counter()
    for file in below:
      name, slash, _ = file.partition('/')
      if not slash:
        return
      names[name] += 1
    place = printable(f'{path.rstrip("/")}/{prefix}'.rstrip('/'))
    _check_splits(place, names, below, classes)
    _check_copies(place, names, below)
    if len(names) > 1:
      return
    # One folder holds them all: what it mixes may lie deeper.
    only = f'{next(iter(names))}/'
    below, prefix = [f[len(only) :] for f in below], prefix + only


def _check_splits(place, names, files, classes):
  train, held_out = _splits(names)
  if not train and not held_out:
    if classes and len(names) == 1:
      _check_one_split(place, next(iter(names)), files)
    return
  shown = [f'{printable(n)} ({names[n]:,})' for n in train + held_out]
  evaluated = f'{place}/{printable(held_out[0])}'
  give, hint = f'one of them, for example {evaluated}', ''
  if train:
    trained = f'{place}/{printable(train[0])}'
    give = f'{trained} for training and {evaluated} for evaluation'
    if _is_deep(files, train[0]) and not _is_deep(files, held_out[0]):
      hint = (
        f' {printable(held_out[0])} has no class folders: if labels are needed,'
        " give a file of them as labels (Kaggle's is LOC_val_solution.csv)."
      )
  raise ValueError(
    f'{place} holds splits of a data set side by side, {", ".join(shown)}: '
    f'they are not classes, and not to be mixed. Give {give}.{hint}'
  )


def _check_one_split(place, name, files):
  """Refuses the folder around a split, whose classes lie one folder deeper."""
  named = _word(name, (*_TRAIN, *_HELD_OUT)) == ('', '')
  if named and _is_deep(files, name):
    raise ValueError(
      f'{place} has one subfolder with pictures, {printable(name)}, which is a '
      f'split of a data set and not a class. Give {place}/{printable(name)}.'
    )


def _splits(names: Collection[str]) -> tuple[list[str], list[str]]:
  """Returns (folders of training pictures, folders of held-out ones).

  They have the same text around their words, as in train2017 and val2017. Both
  lists are empty unless there are both, or nothing but several held-out ones:
  a class may be called train or test tube.
  """
  around: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
  for name in names:
    for kind, words in enumerate((_TRAIN, _HELD_OUT)):
      rest = _word(name, words)
      if rest is not None:
        around.setdefault(rest, ([], []))[kind].append(name)
  for train, held_out in around.values():
    if held_out and (train or 1 < len(held_out) == len(names)):
      # Validation pictures first, because most of them have labels.
      first = sorted(held_out, key=lambda name: ('val' not in name, name))
      return sorted(train), first
  return [], []


def _word(name: str, words: Collection[str]) -> tuple[str, str] | None:
  """Returns what is around one of some words in a name; None if none is."""
  for word in words:
    match = re.fullmatch(
      rf'(|.*[^a-z]){word}(|[ab]|[^a-z].*)', name, re.IGNORECASE
    )
    if match:
      return match[1].lower(), match[2].lower()
  return None


def _is_deep(files, folder):
  start = f'{folder}/'
  return any(f.startswith(start) and f.count('/') > 1 for f in files)


def _check_copies(place, names, files):
  if len(names) < 2:
    return
  lower = {name.lower() for name in names}
  known = bool(_COPIES & set(names)) or set(names) == _UPSCALED
  masks = lower <= _PICTURES | _MASKS and lower & _PICTURES and lower & _MASKS
  if not (known or masks or _same_in_other_sizes(names, files)):
    return
  found = ', '.join(
    f'{printable(name)} ({count:,})' for name, count in names.most_common(8)
  )
  meant = [name for name in _MEANT if name in names]
  meant += [name for name in names if name.lower() in _PICTURES]
  meant += [name for name, _ in names.most_common(1)]
  raise ValueError(
    f'{place} holds several copies of its pictures, or other files about them, '
    f'side by side: {found}. Give one of them, for example '
    f'{place}/{printable(meant[0])}.'
  )


def _same_in_other_sizes(names, files):
  """Returns whether a folder named NxN shares its pictures with another."""
  sized = {
    name
    for name in names
    if any(int(n) >= _LEAST_SIZE for n in _SIZED.findall(name))
  }
  if not sized:
    return False
  inside: dict[str, set[str]] = {name: set() for name in names}
  for file in files:
    name, _, rest = file.partition('/')
    inside[name].add(rest.rpartition('.')[0])
  for name in sized:
    for other, stems in inside.items():
      fewer = min(len(stems), len(inside[name]))
      if other != name and len(stems & inside[name]) > _SHARED * fewer:
        return True
  return False
