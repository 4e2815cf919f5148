"""Reads ImageNet's official tars as a source, without unpacking them.

ILSVRC2012_img_train.tar is a tar of 1,000 tars, one for each class, which are
called after its WordNet id. A folder of these tars is read too.
ILSVRC2012_img_val.tar holds 50,000 images, and no labels.
"""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import tqdm
from absl import logging

from cdm.data import class_labels, folder_classes, image_decoder
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import (
  member_names,
  shard_names,
  tar_images,
  tar_index,
  tar_records,
)
from cdm.data.forms.tar_images import Labelled
from cdm.data.forms.tar_index import Member
from cdm.data.printable_name import printable

_CLASS_TAR = re.compile(r'(n\d{8})\.tar')
_FLAT = re.compile(r'(?:\w+/)?ILSVRC2012_(?:val|test)_\d{8}\.JPEG', re.I)
_OF_CLASS = re.compile(r'(n\d{8})_')


class _Official(NamedTuple):
  """A file of image-net.org; its MD5 is the one that torchvision publishes."""

  name: str
  bytes: int
  images: int
  md5: str


_TRAIN = _Official(
  'ILSVRC2012_img_train.tar',
  147_897_477_120,
  1_281_167,
  '1d675b47d978889d74fa0da5fadfb00e',
)
_VAL = _Official(
  'ILSVRC2012_img_val.tar',
  6_744_924_160,
  50_000,
  '29b22e2961454d5413ddabcf34fc5622',
)


def holds(path: str) -> bool:
  """Returns whether a path is that of ImageNet's tars, by their names.

  Those are the names of a folder's tars, or that of a tar's first member.
  """
  names = shard_names.tars_at(path)
  if os.path.isdir(path):
    are_classes = all(map(_CLASS_TAR.fullmatch, names))
    return are_classes and shard_names.holds_shards(path)
  if not names:
    return False
  if names[0] in (_TRAIN.name, _VAL.name) or _CLASS_TAR.fullmatch(names[0]):
    return True
  first = _first_name(path)
  return bool(_CLASS_TAR.fullmatch(first) or _FLAT.fullmatch(first))


class ImagenetTar(tar_records.TarRecords):
  """A source of ImageNet's images, ordered by class and name.

  This is the order of a folder into which the tars were unpacked.
  """

  KIND = 'imagenet_tar'

  def __init__(
    self,
    path: str | os.PathLike[str],
    class_names: Iterable[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
    exif_rotation: bool = False,
  ):
    """Finds the images; see `tar_images` for how often.

    Args:
      path: ILSVRC2012_img_train.tar, a folder of the tars in it, or
        ILSVRC2012_img_val.tar, whose images have no labels.
      class_names: the names of the labels 0, 1, 2, ...; see `EncodedImages`.
      labels: a file with the label of each image, see `label_file`, in place of
        those of the tars.
      max_pixels: see `EncodedImages`.
      max_value: see `EncodedImages`.
      exif_rotation: see `EncodedImages`.

    Raises:
      DamagedFile: a tar is damaged, as after a download that was not finished.
      ValueError: it is no tar of ImageNet, or labels are asked for that are not
        there.
    """
    limits = image_decoder.check_limits(max_pixels, max_value, exif_rotation)
    path = os.path.expanduser(path)
    names = None if class_names is None else tuple(class_names)
    tars = _tars(path)
    images = tar_images.find(tars, _scan, kind=self.KIND)
    files = list(images.names)
    if names == () or labels is not None:
      own = class_labels.none(len(files))
    elif files and _FLAT.fullmatch(files[0]):
      raise ValueError(
        f'{printable(path)} holds images without labels. Give a file with '
        'their labels (labels=FILE in a config, --labels=FILE of `cdm '
        'prepare`), such as ILSVRC2012_validation_ground_truth.txt of the '
        "development kit or Kaggle's LOC_val_solution.csv, or read the images "
        'without classes (class_names=(), --no_classes).'
      )
    else:
      own = folder_classes.labels_of(files, None, root=path)
    super().__init__(
      path,
      tars,
      images,
      own,
      class_names=names,
      label_path=labels,
      limits=limits,
    )

  @staticmethod
  def holds(path: str) -> bool:
    """See `holds` of this module."""
    return holds(path)


def _tars(path) -> list[str]:
  """Returns the tars that a path stands for."""
  if not os.path.isdir(path):
    return shard_names.find(path)
  names = shard_names.tars_at(path)
  strange = [name for name in names if not _CLASS_TAR.fullmatch(name)]
  if strange or not names:
    found = f', but {printable(strange[0])}' if strange else ''
    raise ValueError(
      f'{printable(path)} is no folder of the tars in {_TRAIN.name}: their '
      f'names are such as n01440764.tar{found}. Give that file, or the folder '
      'of its 1,000 tars.'
    )
  return [os.path.join(path, name) for name in names]


def _scan(path, left_out) -> list[Labelled]:
  try:
    found = sorted(_images(path, left_out))
  except DamagedFile as error:
    raise DamagedFile(f'{error}{_size_text(path)}') from error
  _warn_of_other_counts(path, len(found))
  return [Labelled(member, 0) for member in found]  # its path tells its class


def _images(path, left_out) -> list[Member]:
  """Returns the images in a tar; their names begin with the class's folder."""
  own = _CLASS_TAR.fullmatch(os.path.basename(path))
  outer = list(tar_index.members(path, left_out))
  classes = {m: _CLASS_TAR.fullmatch(m.name) for m in outer}
  if not any(classes.values()):
    if own is None and not (outer and _FLAT.fullmatch(outer[0].name)):
      first = f' It begins with {printable(outer[0].name)}.' if outer else ''
      raise ValueError(
        f"{printable(path)} is none of ImageNet's tars: {_TRAIN.name} has a "
        f'tar for each class, such as n01440764.tar, and {_VAL.name} has '
        f'images such as ILSVRC2012_val_00000001.JPEG.{first} Shards of '
        "webdataset are read with kind='webdataset'."
      )
    return _pictures(path, outer, own[1] if own else None, left_out)
  found = []
  bar = tqdm.tqdm(
    classes.items(),
    unit='class',
    desc=path,
    delay=tar_images.PROGRESS_AFTER_S,
  )
  for member, match in bar:
    if match is None:
      left_out['member that is no tar of a class'] += 1
      continue
    inner = tar_index.members(path, left_out, member)
    found += _pictures(path, inner, match[1], left_out)
  return found


def _pictures(path, members, synset, left_out) -> list[Member]:
  """Returns the pictures among members, named with the class's folder."""
  found = []
  for member in members:
    if not member_names.is_picture(member.name, left_out):
      continue
    if synset is not None:
      other = _OF_CLASS.match(member.name)
      if other is not None and other[1] != synset:
        raise DamagedFile(
          f'{printable(path)} has {printable(member.name)} in {synset}.tar, '
          'which is another class. Download it again.'
        )
      member = member._replace(name=f'{synset}/{member.name}')
    found.append(member)
  return found


def _first_name(path) -> str:
  """Returns the name that a tar begins with; '' if it cannot be read.

  The tar may end inside of that member.
  """
  try:
    with open(path, 'rb') as file:
      name = file.read(100).split(b'\0')[0]
  except OSError:
    return ''
  return name.decode(errors='replace').removeprefix('./')


def _official(path) -> _Official | None:
  """Returns which of the official files a tar is, by its first member."""
  first = _first_name(path)
  if _CLASS_TAR.fullmatch(first):
    return _TRAIN
  return _VAL if '_val_' in first and _FLAT.fullmatch(first) else None


def _size_text(path) -> str:
  """Returns sentences that compare a damaged tar with the official file."""
  official = _official(path)
  if official is None:
    return ''
  size = os.path.getsize(path)
  text = (
    f' {official.name} of image-net.org has {official.bytes:,} bytes and the '
    f'MD5 {official.md5}; this file has {size:,} bytes'
  )
  if size < official.bytes:
    return f'{text}, so its download was not finished.'
  return f'{text}.'


def _warn_of_other_counts(path, count):
  official = _official(path)
  if official is not None and count != official.images:
    logging.warning(
      '%s is whole, but is not the official %s: it has %d of its %d images.',
      printable(path), official.name, count, official.images,
    )  # fmt: skip
