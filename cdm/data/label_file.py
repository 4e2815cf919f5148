"""Reads the labels of pictures from a file beside them.

Validation pictures are distributed in one flat folder, with their classes in a
file: a CSV file of Kaggle, a list of the development kit of ILSVRC, or lines
'NAME LABEL'. A label is the name of a class, such as a WordNet id, or the index
of one in the names that the user gives.

The development kit numbers the classes of ImageNet from 1 on in an order of its
own, which its file meta.mat tells. Any other count from 1 on is refused, since
nothing says what it counts.
"""

import csv
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cdm.data import list_file, picture_files, picture_names
from cdm.data.class_labels import Labels
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.printable_name import printable
from cdm.data.source import first_names

_REMEDY = (
  "Give a file of lines 'NAME LABEL', a CSV file with a header, or one label "
  'on each line in the order of the names.'
)
_DEVKIT = re.compile(r'ILSVRC\d{4}_validation_ground_truth.*')
_META = 'meta.mat'
_BOXES = 'predictionstring'  # Kaggle: 'n01978287 85 1 499 272', again and again
# Names of columns in the headers of public CSV files, in lower case.
_NAMES = ('imageid', 'image_id', 'file_name', 'filename', 'image', 'file')
_NAMES += ('path', 'name', 'id')
_LABELS = (_BOXES, 'label', 'class', 'class_name', 'synset', 'wnid')


class _Line(NamedTuple):
  """One line: its number, the picture that it names or '', and its label."""

  number: int
  name: str
  label: str


def read(
  path: str | os.PathLike[str],
  files: Sequence[str],
  class_names: Sequence[str] | None,
) -> Labels:
  """Returns the label that a file gives to every picture.

  Args:
    path: the file.
    files: the paths of the pictures, with forward slashes.
    class_names: the names of the classes 0, 1, 2, ..., which the labels name or
      count from 0 on; None takes the labels themselves as names.

  Returns:
    The labels in the order of `files`. They count `class_names` if they are
    indices; if not, the names that the file has, in sorted order.

  Raises:
    DamagedFile: the file is damaged.
    ValueError: a picture has no label or several, the file has labels of other
      pictures, or nothing says what its indices count.
  """
  path = os.path.expanduser(os.fspath(path))
  listing = f'the label file {printable(path)}'
  if class_names is not None and not class_names:
    raise ValueError(
      f'labels is {printable(path)}, but class_names is empty, which means '
      'that the images have no labels. Leave out one of the two.'
    )
  numbered = list_file.read_lines(path, _REMEDY)
  lines, names = _parse(path, numbered, files)
  if names is None:
    order = _by_order(lines, files, listing)
  else:
    given = [(line.number, line.name) for line in lines]
    order = picture_names.lines_of(files, names, given, listing)
  lines = [lines[n] for n in order]
  if _DEVKIT.fullmatch(os.path.basename(path)):
    return _devkit_labels(path, lines)
  return _as_labels(lines, class_names, listing)


def _parse(path, numbered, files):
  """Returns (the lines, the table of names by which they name pictures).

  The table is None if the lines name no pictures.
  """
  first = numbered[0][1]
  if path.lower().endswith('.csv') or first.lower().startswith('imageid,'):
    return _parse_csv(path, numbered, files)
  names = picture_names.table(files, (name for name, _ in _splits(first)))
  if names is None:
    for number, text in numbered:
      word, label = next(_splits(text), ('', ''))
      if label and picture_files.has_suffix(word):
        raise ValueError(
          f'Line {number} of the label file {printable(path)} names '
          f'{printable(word)}, which is none of the {len(files):,} pictures '
          f'(the first is {printable(files[0])}). Give the labels of these '
          'pictures.'
        )
    return [_Line(n, '', text.strip()) for n, text in numbered], None
  lines = []
  for number, text in numbered:
    pairs = list(_splits(text))
    known = (pair for pair in pairs if picture_names.holds(names, pair[0]))
    pair = next(known, pairs[0] if pairs else None)
    if pair is None:
      raise ValueError(
        f'Line {number} of the label file {printable(path)} is '
        f"{printable(text.strip())!r}, and other lines are 'NAME LABEL'. Give "
        'every picture its label.'
      )
    lines.append(_Line(number, *pair))
  return lines, names


def _splits(text):
  """Yields the ways to part a line into (name, label); both may hold spaces."""
  if '\t' in text:
    name, _, label = text.partition('\t')
    yield name.strip(), label.strip()
    return
  text = text.strip()
  for space in re.finditer(r'\s+', text):
    yield text[: space.start()], text[space.end() :]


def _parse_csv(path, numbered, files):
  shown = f'the label file {printable(path)}'
  rows = csv.reader(text for _, text in numbered)
  try:
    cells = [[cell.strip() for cell in row] for row in rows]
  except csv.Error as error:
    raise DamagedFile(f'{shown} is not a CSV file: {error}.') from error
  if len(cells) != len(numbered):
    raise DamagedFile(f'{shown} has a quoted line break; write one line each.')
  header = [cell.lower() for cell in cells[0]]
  name_at = next((header.index(n) for n in _NAMES if n in header), None)
  label_at = next((header.index(n) for n in _LABELS if n in header), None)
  first = 1
  if name_at is None or label_at is None:
    if len(header) != 2:
      raise ValueError(
        f'The columns of {shown} are {first_names(tuple(cells[0]))}. Name '
        "two of them 'image' and 'label'."
      )
    # Two columns are a name and a label, whatever they are called; the first
    # row may be one of them.
    name_at, label_at = 0, 1
    first = int(picture_names.table(files, cells[0][:1]) is None)
  boxes = header[label_at] == _BOXES
  lines = []
  for (number, _), row in zip(numbered[first:], cells[first:], strict=True):
    if len(row) != len(header) or not row[name_at] or not row[label_at]:
      raise DamagedFile(
        f'Line {number} of {shown} has {len(row)} of {len(header)} columns, or '
        'no label. Give every picture its label.'
      )
    label = row[label_at]
    if boxes:
      label = _label_of_boxes(label, number, shown)
    lines.append(_Line(number, row[name_at], label))
  if not lines:
    raise DamagedFile(f'{shown} has a header and no lines. {_REMEDY}')
  return lines, picture_names.table(files, [lines[0].name]) or {}


def _label_of_boxes(text, number, shown):
  """Returns the class of 'n01978287 85 1 499 272 n01978287 ...'."""
  words = text.split()
  classes = sorted(set(words[::5]))
  if len(words) % 5 or len(classes) != 1:
    raise DamagedFile(
      f'Line {number} of {shown} is expected to hold a class and four numbers '
      f'for each box, all of one class, and is {printable(text)[:80]!r}.'
    )
  return classes[0]


def _by_order(lines, files, listing):
  """Returns for every picture the line that stands at its place."""
  if len(lines) != len(files):
    raise ValueError(
      f'{listing} names no pictures and has {len(lines):,} labels, but there '
      f'are {len(files):,} pictures. Give one label for each, in the order of '
      "their names, or lines 'NAME LABEL'."
    )
  if any('/' in file for file in files):
    raise ValueError(
      f'{listing} names no pictures, and they lie in several folders, such as '
      f"{printable(files[0])}: their order is not certain. Write lines 'NAME "
      "LABEL' into it."
    )
  by_text = sorted(range(len(files)), key=files.__getitem__)
  by_number = sorted(by_text, key=lambda i: _natural(files[i]))
  for at, (i, k) in enumerate(zip(by_text, by_number, strict=True)):
    if i != k:
      raise ValueError(
        f'{listing} names no pictures, and their order is not certain: label '
        f'{at + 1} may be that of {printable(files[i])} or of '
        f"{printable(files[k])}. Write lines 'NAME LABEL' into it."
      )
  if by_text != list(range(len(files))):
    raise ValueError(
      f'{listing} names no pictures, and the pictures are not in the order of '
      "their names: their order is not certain. Write lines 'NAME LABEL' into "
      'it.'
    )
  return by_text


def _natural(name):
  """Returns a key by which x9 comes before x10."""
  parts = re.split(r'(\d+)', name)  # text and digits in turn
  return [int(part) if n % 2 else part for n, part in enumerate(parts)]


def _as_labels(lines, class_names, listing):
  """Returns the labels of pictures, by the names or the indices of classes."""
  texts = [line.label for line in lines]
  found = set(texts)
  known = found <= set(class_names or ())
  if not known and all(map(_is_index, found)):
    return _by_index(lines, class_names, listing)
  spaced = next((line for line in lines if ' ' in line.label), None)
  if class_names is None and spaced and not spaced.name:
    raise ValueError(
      f'Line {spaced.number} of {listing} is {printable(spaced.label)!r}: it '
      'names neither one of the pictures nor a class. Give the names of the '
      "classes as class_names, or lines 'NAME LABEL'."
    )
  names = tuple(sorted(found))
  numbers = {name: n for n, name in enumerate(names)}
  return Labels(np.array([numbers[t] for t in texts], np.int32), names)


def _is_index(text):
  return re.fullmatch(r'-?\d{1,9}', text) is not None


def _by_index(lines, class_names, listing):
  values = np.array([int(line.label) for line in lines], np.int32)
  low, high = int(values.min()), int(values.max())
  if class_names is None:
    raise ValueError(
      f'The labels in {listing} are numbers from {low} to {high}, and nothing '
      'says which classes they count. Give the names of the classes 0, 1, 2, '
      '... as class_names (a file with one on each line, or a list).'
    )
  count = len(class_names)
  if 0 <= low and high < count:
    return Labels(values, tuple(class_names))
  from_one = ''
  if (low, high) == (1, count):
    from_one = (
      ' They seem to count from 1. If it is the list of the development kit of '
      'ILSVRC, keep its name, ILSVRC2012_validation_ground_truth.txt, and put '
      f'its {_META} beside it; if not, subtract 1 from each label, or write '
      'names of classes.'
    )
  odd = next(line for line in lines if not 0 <= int(line.label) < count)
  raise ValueError(
    f'Line {odd.number} of {listing} has the index {odd.label}, but the '
    f'{count} classes are 0 to {count - 1}.'
    f'{from_one or " Correct it, or give all names of classes."}'
  )


def _devkit_labels(path, lines):
  """Returns the labels of the list of the development kit, by its meta.mat."""
  ids = _read_meta(path)
  names = tuple(sorted(ids.values()))
  numbers = {name: n for n, name in enumerate(names)}
  labels = []
  for line in lines:
    number = int(line.label) if _is_index(line.label) else 0
    if number not in ids:
      raise DamagedFile(
        f'Line {line.number} of the label file {printable(path)} is '
        f'{printable(line.label)[:80]!r}, and the numbers of the development '
        f'kit are 1 to {len(ids)}. Take the file of the kit once more.'
      )
    labels.append(numbers[ids[number]])
  return Labels(np.array(labels, np.int32), names)


def _read_meta(path) -> dict[int, str]:
  """Returns {number of the development kit: WordNet id} of the classes."""
  from scipy import io

  folder = pathlib.Path(path).parent
  places = [folder / _META, folder / 'data' / _META, folder.parent / 'data']
  places[-1] /= _META
  meta = next((place for place in places if place.is_file()), None)
  if meta is None:
    raise ValueError(
      f'{printable(path)} numbers the classes in an order of its own, in which '
      f'1 is not the first WordNet id, and {_META}, which tells it, is not '
      f'beside it. Copy {_META} of the development kit '
      '(ILSVRC2012_devkit_t12/data) there.'
    )
  try:
    # No part of it is a pickle.
    synsets = io.loadmat(
      str(meta), variable_names=['synsets'], squeeze_me=True
    )['synsets']
    ids = {
      int(row['ILSVRC2012_ID']): str(row['WNID'])
      for row in synsets
      # Nodes that have children are no classes of the challenge.
      if int(row['num_children']) == 0
    }
  except Exception as error:  # scipy's own, of several types
    if not_of_the_file(error):
      raise
    reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200]
    raise DamagedFile(
      f'{printable(str(meta))} is damaged ({reason}). Take the file of the '
      'development kit once more.'
    ) from error
  whole = set(ids) == set(range(1, len(ids) + 1))
  if not whole or len(set(ids.values())) != len(ids):
    raise DamagedFile(
      f'{printable(str(meta))} does not number its classes from 1 on. Take the '
      'file of the development kit once more.'
    )
  return ids
