"""Reads and writes the names of classes, and finds the class a user means.

`classes.json` is a JSON list whose n-th string is the name of label n. It lies
beside a run's checkpoints, and beside an archive of labelled samples.
"""

import json
import os
import pathlib
from collections.abc import Sequence

from cdm.data import list_file
from cdm.data.files import atomic_files, json_file
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

FILE = 'classes.json'


def read(folder: str | os.PathLike[str]) -> list[str] | None:
  """Returns the list of names in a folder, or None if there is no file.

  Raises:
    DamagedFile: the file is damaged.
  """
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    return None
  try:
    return json_file.read(path, list[str], remedy='')
  except DamagedFile as error:
    raise DamagedFile(
      f'{path} is damaged: it is not a list of class names. Write it again, as '
      'a JSON list of one string for each label.'
    ) from error


def write(folder: str | os.PathLike[str], names: Sequence[str] | None) -> None:
  """Writes the names into a folder; does nothing if there are none."""
  if names:
    text = json.dumps(list(names)) + '\n'
    atomic_files.write_text_atomically(pathlib.Path(folder) / FILE, text)


def parse(text: str) -> tuple[str, ...]:
  """Returns the names of the classes 0, 1, 2, ... that a user gives as text.

  Args:
    text: the path of a file, with a name on each line or a JSON list as in
      `classes.json`; or the names, with commas between them. '' is no classes.

  Raises:
    DamagedFile: the file is damaged.
    ValueError: there is no such file, or a name is empty or given twice.
  """
  path = os.path.expanduser(text)
  if os.path.isfile(path):
    names = _read_names(path)
  elif os.sep in text or text.endswith(('.txt', '.json')):
    raise ValueError(
      f'class_names: there is no file {printable(text)}. Give a file with the '
      'name of a class on each line, or the names with commas between them.'
    )
  else:
    names = [name.strip() for name in text.split(',')] if text.strip() else []
  seen: dict[str, int] = {}
  for n, name in enumerate(names):
    if not name or name in seen:
      why = f'that of class {seen[name]} too' if name else 'empty'
      raise ValueError(
        f'class_names: the name of class {n}, {name!r}, is {why}. Give every '
        'class a name of its own.'
      )
    seen[name] = n
  return tuple(names)


def _read_names(path: str) -> list[str]:
  if path.endswith('.json'):
    remedy = 'Write a JSON list of one string for each class.'
    return json_file.read(path, list[str], remedy=remedy)
  remedy = 'Give a text file with the name of a class on each line.'
  return [text.strip() for _, text in list_file.read_lines(path, remedy)]


def find_label(text: str, names: Sequence[str] | None, num_classes: int) -> int:
  """Returns the label that a user means by the name or the index of a class.

  Args:
    text: what the user typed. It is taken as an index only if no class has this
      name.
    names: the names of labels 0, 1, ..., or None.
    num_classes: number of labels.

  Raises:
    ValueError: there is no such class, or several have this name.
  """
  text, names = text.strip(), list(names or ())
  if names.count(text) > 1:
    same = [str(n) for n, name in enumerate(names) if name == text]
    raise ValueError(
      f'{text!r} is the name of the classes {", ".join(same)}; give the index '
      'of the one that is meant.'
    )
  if text in names:
    return names.index(text)
  if text.isdecimal() and int(text) < num_classes:
    return int(text)
  known = f'an index from 0 to {num_classes - 1}'
  if names:
    more = ', ...' if len(names) > 20 else ''
    known += f' or a name: {", ".join(names[:20])}{more}'
  raise ValueError(f'{text!r} is not a class; give {known}.')


def find_labels(
  text: str, names: Sequence[str] | None, num_classes: int
) -> list[int]:
  """Returns the labels in a list such as '3,7,dog'; see `find_label`.

  If the whole text is the name of one class, such as 'tench, Tinca tinca', it
  means that class.
  """
  words = [text] if text in (names or ()) else text.split(',')
  return [find_label(word, names, num_classes) for word in words]


def describe(label: int, names: Sequence[str] | None) -> str:
  """Returns a label in words: 'dog (class 3)', or 'class 3' without a name."""
  if names and label < len(names):
    return f'{names[label]} (class {label})'
  return f'class {label}'
