"""The flags that say what the images of a data set are labelled and ordered by.

They set the keys `labels`, `class_names` and `order` of a data section.
"""

import argparse
import inspect
from typing import Any

KEYS = ('labels', 'class_names', 'order')


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to a parser."""
  parser.add_argument(
    '--labels',
    metavar='FILE',
    help="labels of the images, for a flat folder: lines 'NAME LABEL', a label "
    "on each line in the order of the names, Kaggle's LOC_val_solution.csv, or "
    "the development kit's ILSVRC2012_validation_ground_truth.txt with its "
    'meta.mat beside it',
  )
  parser.add_argument(
    '--class_names',
    metavar='NAMES',
    help='names of the classes 0, 1, 2, ...: a file with a name on each line, '
    'a classes.json, or a list with commas; an empty text for no classes '
    "(default: the data set's own, in sorted order)",
  )
  parser.add_argument(
    '--order',
    metavar='ORDER',
    help='order of the images of a folder: numbers (default: names that are '
    'numbers count as numbers), text, or a file with a path on each line',
  )


def with_flags(
  section: dict[str, Any], args: argparse.Namespace, source: str
) -> dict[str, Any]:
  """Returns a data section with the keys that the flags set.

  Args:
    section: the section.
    args: the parsed arguments.
    source: the flag that named the data set, for error messages.

  Raises:
    ValueError: data of its kind has no such key, or the names cannot be meant.
  """
  from cdm.config import datasets
  from cdm.data import class_names

  given: dict[str, Any] = {
    key: getattr(args, key) for key in KEYS if getattr(args, key) is not None
  }
  kind = section['kind']
  known = inspect.signature(datasets.SOURCES[kind]).parameters
  for key in given:
    if key not in known:
      raise ValueError(
        f'--{key} does not apply to {source}, which is read as {kind}; leave '
        'it out.'
      )
  if 'class_names' in given:
    if section.get('class_names') == ():
      raise ValueError(
        '--no_classes and --class_names exclude each other; leave out one.'
      )
    given['class_names'] = class_names.parse(given['class_names'])
  if kind == 'folder' and 'order' not in section:
    given.setdefault('order', 'numbers')
  return section | given
