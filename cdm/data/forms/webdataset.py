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
  kept_index,
  member_names,
  shard_names,
  tar_index,
  tar_records,
)
from cdm.data.forms.kept_index import Records
from cdm.data.forms.packed_names import PackedNames
from cdm.data.forms.tar_index import Member
from cdm.data.printable_name import printable

_IMAGES = ('jpg', 'jpeg', 'png', 'webp')
_LABEL_KEYS = ('label', 'class_label')  # of the .json, if none is given
_UNLABELLED = -2  # in `Records`; -1 is a label that is withheld
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
    """Finds the samples of every shard; see `kept_index` for how often.

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
    path = os.path.expanduser(path)
    names = None if class_names is None else tuple(class_names)
    layout = _Layout(
      None if image_key is None else image_key.lower().lstrip('.'),
      label_key,
      labelled=names != () and labels is None,
    )
    tars = [
      (shard, _records(shard, layout)) for shard in shard_names.find(path)
    ]
    found = [tar for tar in tars if len(tar[1].names)] or tars
    super().__init__(
      path,
      found,
      _labels(found, layout),
      class_names=names,
      max_pixels=max_pixels,
      max_value=max_value,
      label_path=labels,
      exif_rotation=exif_rotation,
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


def _labels(tars: list[tuple[str, Records]], layout: _Layout) -> Labels:
  """Returns the labels of all samples.

  Raises:
    ValueError: some of them have no label.
  """
  values = np.concatenate([found.labels for _, found in tars])
  missing = np.flatnonzero(values == _UNLABELLED)
  if not layout.labelled or (
    len(missing) == len(values) and layout.label_key is None
  ):
    return class_labels.none(len(values))
  first = tars[0][0]
  if len(missing):
    shard, names = next(
      (shard, found.names[int(np.argmin(found.labels))])
      for shard, found in tars
      if _UNLABELLED in found.labels
    )
    wanted = layout.label_key or 'a .cls or a .json with a label'
    raise ValueError(
      f'{printable(os.path.join(shard, names))} and {len(missing) - 1:,} other '
      f'samples of {len(values):,} have no label: {wanted} was expected. Read '
      'the images without classes (class_names=() in a config), or write the '
      'shards again.'
    )
  return numbered_labels.labels_of(
    values, data=first, folder=os.path.dirname(first)
  )


def _records(shard: str, layout: _Layout) -> Records:
  return kept_index.records_of(
    shard,
    lambda: _scan(shard, layout),
    kind=f'{Webdataset.KIND} {tuple(layout)}',
  )


def _scan(shard: str, layout: _Layout) -> Records:
  left_out = collections.Counter()
  found = []
  for key, files in _samples(shard, left_out):
    image = _image(shard, key, files, layout.image_key)
    if image is None:
      left_out['sample without an image'] += 1
      continue
    label = _label(shard, files, layout.label_key) if layout.labelled else None
    found.append((image, _UNLABELLED if label is None else max(label, -1)))
  return Records(
    PackedNames.of(image.name for image, _ in found),
    np.array([image.offset for image, _ in found], np.int64),
    np.array([image.size for image, _ in found], np.int64),
    np.array([label for _, label in found], np.int32),
    dict(left_out),
  )


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
