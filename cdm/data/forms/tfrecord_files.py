"""Finds the TFRecord files of a data set.

NVIDIA's programs write a file for each resolution, NAME-r02.tfrecords of 4
pixels to NAME-r10.tfrecords of 1024, and NAME-rxx.labels. Others number their
files, such as train-00000-of-01024.
"""

import os
import re

from cdm.data.forms import shard_files
from cdm.data.printable_name import printable
from cdm.data.source import first_names

_NAME = re.compile(r'\.tfrecords?($|[-_.])|^[^.]+-\d{5}-of-\d{5}$')
_BY_RESOLUTION = re.compile(r'(.+)-r(\d\d)\.tfrecords')
_LABELS = '-rxx.labels'


def is_tfrecord(name: str) -> bool:
  """Returns whether a file of this name may hold TFRecords."""
  return _NAME.search(name) is not None


def choose(path: str, split: str | None, resolution: int | None) -> list[str]:
  """Returns the paths of the files that are read, in order.

  Args:
    path: a file, or a folder with some in it or below it.
    split: the words before the number, or NAME of NVIDIA's files; None takes
      the only one.
    resolution: of NVIDIA's files; None takes the largest.

  Raises:
    ValueError: there are no such files, or several splits.
    DamagedFile: files are missing.
  """
  if not os.path.isdir(path):
    if not os.path.isfile(path):
      raise ValueError(
        f'{printable(path)} does not exist; give a file of TFRecords, or a '
        'folder of them.'
      )
    if resolution is not None:
      raise ValueError(
        f'resolution={resolution} chooses among files in a folder, but '
        f'{printable(path)} is a file. Give its folder, or no resolution.'
      )
    folder = os.path.dirname(path) or '.'
    return shard_files.choose(folder, [path], split, is_whole=False)
  files = shard_files.list_files(path, is_tfrecord)
  if not files:
    raise ValueError(
      f'{printable(path)} has no file in it, or up to three folders below it, '
      'whose name ends in .tfrecords or .tfrecord or is like '
      'train-00000-of-01024. Give the folder that holds them.'
    )
  matches = [_BY_RESOLUTION.fullmatch(os.path.basename(f)) for f in files]
  if any(matches):
    found = [(m, f) for m, f in zip(matches, files, strict=True) if m]
    return [_by_resolution(path, found, split, resolution)]
  if resolution is not None:
    raise ValueError(
      f'resolution={resolution} chooses among files like '
      f'NAME-r07.tfrecords, and {printable(path)} has none. Give no '
      'resolution.'
    )
  return shard_files.choose(path, files, split)


def _by_resolution(path, found, split, resolution):
  """Returns the file of one resolution of one data set."""
  names = tuple(sorted({match[1] for match, _ in found}))
  if split not in names:
    if split is not None or len(names) > 1:
      asked = '' if split is None else f'no {split!r}; it has '
      raise ValueError(
        f'{printable(path)} has {asked}the data sets {first_names(names)}. '
        f'Choose one with split={names[-1]!r}.'
      )
    (split,) = names
  by_size = {2 ** int(m[2]): file for m, file in found if m[1] == split}
  size = max(by_size) if resolution is None else resolution
  if size not in by_size:
    raise ValueError(
      f'{printable(path)} has no images of {size} pixels; it has '
      f'{", ".join(map(str, sorted(by_size)))}. Give one of these as '
      'resolution.'
    )
  return by_size[size]


def labels_of(file: str) -> str | None:
  """Returns the path of NVIDIA's labels beside a file; None without.

  They are the same for all resolutions.
  """
  folder, name = os.path.split(file)
  match = _BY_RESOLUTION.fullmatch(name)
  if match is None:
    return None
  labels = os.path.join(folder, match[1] + _LABELS)
  return labels if os.path.isfile(labels) else None
