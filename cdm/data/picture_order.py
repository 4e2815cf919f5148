"""Orders the pictures of a folder, which decides the number of each.

  'text'      by path, character by character: 1.jpg, 10.jpg, 9.jpg
  'numbers'   the same, but where all names in a folder are numbers, by number:
              1.jpg, 9.jpg, 10.jpg
  FILE        as a text file lists them, a path on each line

Folders of CelebA-HQ number their pictures without leading zeros, and lists of
splits count them as numbers.
"""

import os
from collections.abc import Sequence

from cdm.data import list_file, picture_names
from cdm.data.printable_name import printable

TEXT = 'text'
NUMBERS = 'numbers'
STORED = 'as stored'  # of a data set that is no folder


def ordered(files: Sequence[str], order: str) -> tuple[str, ...]:
  """Returns the paths of pictures in an order, see the module.

  Args:
    files: paths with forward slashes, ordered as text.
    order: 'text', 'numbers' or the path of a list.

  Raises:
    damaged_file.DamagedFile: the list is damaged.
    ValueError: the list cannot be read, or it lacks pictures or has others.
  """
  if order == TEXT:
    return tuple(files)
  if order == NUMBERS:
    return _by_number(files)
  return _as_listed(files, order)


def describe(order: str) -> str:
  """Returns an order as the manifest of a prepared data set records it."""
  known = order in (TEXT, NUMBERS, STORED)
  return order if known else f'list {os.path.basename(order)}'


def _by_number(files):
  if not any(_number(file.rpartition('/')[2]) is not None for file in files):
    return tuple(files)
  entries: dict[str, set[tuple[bool, str]]] = {}
  for file in files:
    parent, _, name = file.rpartition('/')
    entries.setdefault(parent, set()).add((True, name))
    while parent:
      below, parent = parent, parent.rpartition('/')[0]
      beside = entries.setdefault(parent, set())
      entry = (False, below.rpartition('/')[2])
      if entry in beside:
        break
      beside.add(entry)
  # A folder of both files and folders is not one list of numbers: the folder
  # 001 of `cdm sample` holds the pictures from 1000 on.
  numbered = {
    folder
    for folder, found in entries.items()
    if len({is_file for is_file, _ in found}) == 1
    and all(_number(name) is not None for _, name in found)
  }
  if not numbered:
    return tuple(files)

  def key(file):
    parts, folder = [], ''
    for name in file.split('/'):
      number = _number(name) if folder in numbered else 0
      parts.append((number, name))
      folder = f'{folder}/{name}' if folder else name
    return parts

  return tuple(sorted(files, key=key))


def _number(name):
  """Returns the number that a file or a folder is named by, or None."""
  stem = os.path.splitext(name)[0]
  return int(stem) if stem.isdecimal() and len(stem) < 20 else None


def _as_listed(files, order):
  path = os.path.expanduser(order)
  remedy = (
    "Give order='numbers', order='text' or a text file with the path of a "
    'picture on each line.'
  )
  lines = list_file.read_lines(path, remedy)
  lines = [(number, text.strip()) for number, text in lines]
  names = picture_names.table(files, [lines[0][1]])
  listing = f'the list {printable(path)}'
  found = picture_names.lines_of(files, names, lines, listing)
  places = sorted(range(len(files)), key=found.__getitem__)
  return tuple(files[i] for i in places)
