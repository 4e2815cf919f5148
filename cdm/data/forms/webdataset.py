"""Reads the images in shards of webdataset as a source.

A shard is a tar in which the files of one sample follow each other and have the
same path up to the first dot of the file name: KEY.jpg is its image, KEY.cls
its label as a number in text, and KEY.json may hold the label instead.
"""

import collections
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cdm.data import class_labels, image_decoder, numbered_labels
from cdm.data.class_labels import Labels
from cdm.data.files import json_file
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import (
  byte_ranges,
  imagenet_tar,
  member_names,
  shard_names,
  tar_images,
  tar_index,
  tar_records,
)
from cdm.data.forms.tar_images import Labelled, TarImages
from cdm.data.forms.tar_index import Member
from cdm.data.printable_name import printable

_IMAGES = ('jpg', 'jpeg', 'png', 'webp')
_LABEL_KEYS = ('label', 'class_label')  # of the .json, if none is given
# Labels of `TarImages`; numbers below 0 are refused in the same way as -1.
_WITHHELD, _UNLABELLED = -1, -2
_MOST_LABEL_BYTES = 1 << 20  # of a .cls or a .json
_REMEDY = 'Correct it and write the shard again.'


class Webdataset(tar_records.TarRecords):
  """A source of the samples in shards, in their order; see `EncodedImages`."""

  KIND = 'webdataset'

  def __init__(
    self,
    path: str | os.PathLike[str],
    class_names: Iterable[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
    exif_rotation: bool = False,
    image_key: str | None = None,
    label_key: str | None = None,
  ):
    """Finds the samples of every shard; see `tar_images` for how often.

    Args:
      path: a shard, a folder of shards, or a pattern of their paths such as
        '/data/imagenet-train-{000000..000146}.tar'.
      class_names: the names of the labels 0, 1, 2, ...; see `EncodedImages`. A
        `classes.json` beside the shards names them too.
      labels: a file with the label of each image, see `label_file`, in place of
        those of the shards.
      max_pixels: see `EncodedImages`.
      max_value: see `EncodedImages`.
      exif_rotation: see `EncodedImages`.
      image_key: what follows the dot in the name of the image, such as 'jpg';
        None takes the only one among jpg, jpeg, png and webp.
      label_key: the entry of the .json that is the label; None takes 'label' or
        'class_label', if there is one. A .cls is read instead if it is there
        and no key is given.

    Raises:
      DamagedFile: a shard or the label of a sample is damaged.
      ValueError: there are no shards, or some images have labels and some not.
    """
    limits = image_decoder.check_limits(max_pixels, max_value, exif_rotation)
    path = os.path.expanduser(path)
    names = None if class_names is None else tuple(class_names)
    layout = _Layout(
      None if image_key is None else image_key.lower().lstrip('.'),
      label_key,
      labelled=names != () and labels is None,
    )
    shards = shard_names.find(path)
    images = tar_images.find(
      shards,
      lambda shard, left_out: _scan(shard, layout, left_out),
      kind=f'{self.KIND} {tuple(layout)}',
    )
    super().__init__(
      path,
      shards,
      images,
      _labels(images, shards, layout),
      class_names=names,
      label_path=labels,
      limits=limits,
    )

  @staticmethod
  def holds(path: str) -> bool:
    """Returns whether a path is that of shards, by their names."""
    if shard_names.is_pattern(path):
      return path.lower().endswith(shard_names.SUFFIX)
    if imagenet_tar.holds(path):
      return False
    if os.path.isdir(path):
      return shard_names.holds_shards(path)
    return bool(shard_names.tars_at(path))


class _Layout(NamedTuple):
  """How a sample is stored; see the arguments of `Webdataset`.

  Attributes:
    image_key: see there.
    label_key: see there.
    labelled: whether labels are read.
  """

  image_key: str | None
  label_key: str | None
  labelled: bool


def _labels(images: TarImages, shards: list[str], layout: _Layout) -> Labels:
  """Returns the labels of all samples.

  Raises:
    ValueError: some of them have no label.
  """
  count = len(images.labels)
  missing = np.flatnonzero(images.labels == _UNLABELLED)
  if not layout.labelled or (len(missing) == count and not layout.label_key):
    return class_labels.none(count)
  if len(missing):
    shard = shards[
      int(np.searchsorted(np.cumsum(images.counts), missing[0], side='right'))
    ]
    name = printable(os.path.join(shard, images.names[int(missing[0])]))
    wanted = layout.label_key or 'a .cls or a .json with a label'
    raise ValueError(
      f'{name} and {len(missing) - 1:,} other samples of {count:,} have no '
      f'label: {wanted} was expected. Read the images without classes '
      '(class_names=() in a config), or write the shards again.'
    )
  return numbered_labels.labels_of(
    images.labels, data=shards[0], folder=os.path.dirname(shards[0])
  )


def _scan(
  shard: str, layout: _Layout, left_out: collections.Counter[str]
) -> list[Labelled]:
  found = []
  for key, files in _samples(shard, left_out):
    image = _image(shard, key, files, layout.image_key)
    if image is None:
      left_out['sample without an image'] += 1
      continue
    label = _label(shard, files, layout.label_key) if layout.labelled else None
    number = _UNLABELLED if label is None else max(label, _WITHHELD)
    found.append(Labelled(image, number))
  return found


def _samples(
  shard: str, left_out: collections.Counter[str]
) -> Iterator[tuple[str, dict[str, Member]]]:
  """Yields (key, {what follows the dot: file}) of every sample of a shard.

  Raises:
    DamagedFile: the shard is damaged, or the files of a sample do not follow
      each other.
  """
  seen, current = set(), None
  files: dict[str, Member] = {}
  for member in tar_index.members(shard, left_out):
    if member_names.is_hidden(member.name, left_out):
      continue
    folder, slash, name = member.name.rpartition('/')
    key, dot, suffix = name.partition('.')
    if not dot:
      left_out['without a suffix'] += 1
      continue
    key, suffix = folder + slash + key, suffix.lower()
    if key != current and current is not None:
      yield current, files
      files = {}
    if key != current and key in seen or suffix in files:
      raise DamagedFile(
        f'{printable(shard)} has the sample {printable(key)} twice; the files '
        'of a sample must follow each other. Write it with tar --sort=name.'
      )
    seen.add(key)
    current, files[suffix] = key, member
  if current is not None:
    yield current, files


def _image(shard, key, files, image_key) -> Member | None:
  if image_key is not None:
    return files.get(image_key)
  found = [suffix for suffix in files if suffix in _IMAGES]
  if len(found) > 1:
    raise ValueError(
      f'{printable(shard)} has several images in the sample {printable(key)}: '
      f'{", ".join(found)}. Set image_key to the one that is meant.'
    )
  return files[found[0]] if found else None


def _label(shard, files, label_key) -> int | None:
  """Returns the label of a sample; None if it has none."""
  if 'cls' in files and label_key is None:
    name, data = _content(shard, files['cls'])
    text = data[:100].decode('ascii', 'replace').strip()
    if not re.fullmatch(r'-?\d{1,9}', text):
      raise DamagedFile(
        f'{name} says {printable(text)!r}; a label was expected, an integer '
        f'from 0 on. {_REMEDY}'
      )
    return int(text)
  if 'json' not in files:
    return None
  name, data = _content(shard, files['json'])
  entries = json_file.parse(data, dict[str, Any], name=name, remedy=_REMEDY)
  keys = _LABEL_KEYS if label_key is None else (label_key,)
  value = next((entries[key] for key in keys if key in entries), None)
  if value is not None and not (type(value) is int and abs(value) < 10**9):
    raise ValueError(
      f'{name} has the label {printable(repr(value)[:60])}; an integer from 0 '
      'on was expected. Set label_key to the entry that is one, or read the '
      'images without classes (class_names=() in a config).'
    )
  return value


def _content(shard, member) -> tuple[str, bytes]:
  """Returns (how an error names a small file, its bytes)."""
  name = printable(os.path.join(shard, member.name))
  if member.size > _MOST_LABEL_BYTES:
    raise DamagedFile(
      f'{name} has {member.size:,} bytes; the label of one image was expected. '
      f'{_REMEDY}'
    )
  return name, byte_ranges.read(shard, member.offset, member.size)
