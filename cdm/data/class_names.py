"""Reads and writes the names of classes, and finds the class a user means.

`classes.json` is a JSON list whose n-th string is the name of label n. It lies
beside the checkpoints of a run, and beside an archive of labelled samples.
"""

import json
import pathlib

from cdm.data import atomic_files

FILE = 'classes.json'


def read(folder):
  """Returns the list of names in a folder, or None where there is no file.

  Raises:
    ValueError: the file is damaged.
  """
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    return None
  try:
    names = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(_damaged(path)) from error
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise ValueError(_damaged(path))
  return names


def write(folder, names):
  """Writes the names; does nothing where there are none."""
  if names:
    with atomic_files.write_atomically(pathlib.Path(folder) / FILE) as path:
      path.write_text(json.dumps(list(names)) + '\n')


def find_label(text, names, num_classes):
  """Returns the label that a user means: a name if it is one, else an index.

  Args:
    text: what was typed.
    names: the names of labels 0, 1, ..., or None.
    num_classes: how many labels there are.

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
  raise ValueError(f'{text!r} is no class; a class is {known}.')


def find_labels(text, names, num_classes):
  """Returns the labels of a list such as '3,7,dog'; see `find_label`.

  A text that as a whole is the name of a class, such as 'tench, Tinca tinca',
  is that class.
  """
  words = [text] if text in (names or ()) else text.split(',')
  return [find_label(word, names, num_classes) for word in words]


def describe(label, names):
  """Returns how people are told of a label: 'dog (class 3)' or 'class 3'."""
  if names and label < len(names):
    return f'{names[label]} (class {label})'
  return f'class {label}'


def _damaged(path):
  return (
    f'{path} is no list of the names of classes; it is damaged. Write it '
    'again, as a JSON list of one string for each label.'
  )
