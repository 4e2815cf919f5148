"""Reads dataset.json, in which StyleGAN's and EDM's tools write the labels.

The file lies at the root of a folder or a zip:

  {"labels": [["00000/img00000000.png", 3], ...]}

or {"labels": null} for images without classes. Its paths are relative to the
root. The folders in them are numbered parts of the set and never classes.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cdm.data import class_labels, numbered_labels
from cdm.data.class_labels import Labels
from cdm.data.files import json_file
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

FILE = 'dataset.json'
LATENTS = ('.npy', '.npz', '.pt', '.pth', '.safetensors')
_REMEDY = (
  f'Write it again with the tool that made it, or remove {FILE} if it belongs '
  'to another program.'
)


def parse(
  data: bytes, files: Sequence[str], *, name: str, folder: str | os.PathLike
) -> Labels:
  """Returns the labels of images.

  Args:
    data: the contents of dataset.json.
    files: paths of the images relative to its folder, with forward slashes.
    name: path of dataset.json in error messages.
    folder: the folder in which a `classes.json` with names is looked for.

  Raises:
    DamagedFile: it is not such a file, or it lists other images.
    ValueError: its labels are not classes.
  """
  contents = json_file.parse(data, {'labels': Any}, name=name, remedy=_REMEDY)
  listed = contents['labels']
  if listed is None:
    return class_labels.none(len(files))
  if isinstance(listed, dict):
    listed = [list(pair) for pair in listed.items()]
  if not _are_pairs(
    listed
  ):  # A check by declared types takes ten times longer.
    declared = list[tuple[str, Any]]
    json_file.check(listed, declared, name=f'labels of {name}', remedy=_REMEDY)
  found: dict[str, Any] = {}
  for file, label in listed:
    file = file.replace('\\', '/')
    if found.setdefault(file, label) != label:
      raise DamagedFile(
        f'{printable(name)} gives {printable(file)} two labels, '
        f'{_shown(found[file])} and {_shown(label)}. {_REMEDY}'
      )
  _compare(found, files, name)
  values, count = _numbers([found[file] for file in files], files, name)
  return numbered_labels.labels_of(
    values, data=name, folder=folder, count=count
  )


def _are_pairs(listed):
  return isinstance(listed, list) and all(
    isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
    for pair in listed
  )


def refuse_latents(count: int, *, name: str) -> None:
  """Raises ValueError if a data set holds latents instead of images.

  Args:
    count: how many files with a suffix of `LATENTS` it holds.
    name: the data set, in the error.
  """
  if count:
    raise ValueError(
      f'{printable(name)} holds {count:,} arrays ({", ".join(LATENTS)}), such '
      'as the latents of an autoencoder that EDM2 trains on, and cdm reads '
      'images. Give the set of PNG or JPEG files from which they were made.'
    )


def _compare(found, files, name):
  """Raises DamagedFile unless dataset.json lists the images that are there."""
  strange = found.keys() - set(files)
  refuse_latents(
    sum(file.lower().endswith(LATENTS) for file in strange), name=name
  )
  if strange:
    raise DamagedFile(
      f'{printable(name)} lists {len(strange):,} images that are not there, '
      f'the first {printable(min(strange))}. Copy or download the set again.'
    )
  missing = [file for file in files if file not in found]
  if missing:
    raise DamagedFile(
      f'{printable(name)} has no label for {len(missing):,} of the '
      f'{len(files):,} images, the first {printable(missing[0])}. Remove '
      'these images, or write the file again.'
    )


def _numbers(labels, files, name) -> tuple[np.ndarray, int | None]:
  """Returns (labels as integers, number of classes if vectors tell it)."""
  count = len(labels[0]) if isinstance(labels[0], list) else None
  for file, label in zip(files, labels, strict=True):
    if not (type(label) is int if count is None else _is_one_hot(label, count)):
      raise ValueError(
        f'{printable(name)} gives {printable(file)} the label '
        f'{_shown(label)}, which is no class: an index from 0 on was expected, '
        'or in all images a vector of one 1 and zeros. Correct it, or read '
        'the images without classes (class_names=() in a config).'
      )
  if count is not None:
    labels = [label.index(1) for label in labels]
  # What does not fit into 32 bits is refused as too large or too small a label.
  clipped = [max(-1, min(label, 2**31 - 1)) for label in labels]
  return np.array(clipped, np.int64), count


def _is_one_hot(label, count):
  return (
    isinstance(label, list)
    and len(label) == count
    and count > 1
    and all(type(each) in (int, float) and each in (0, 1) for each in label)
    and sum(label) == 1
  )


def _shown(label):
  text = repr(label)
  return text if len(text) <= 60 else f'{text[:57]}...'
