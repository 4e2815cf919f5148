"""Maps the classes that a data set names itself to those that are asked for."""

import collections
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cdm.data.source import first_names

_WORDNET_ID = re.compile(r'n\d{8}')


class Labels(NamedTuple):
  """The label of every image of a source.

  Attributes:
    values: int32 [N]; -1 for an image whose label is withheld.
    class_names: the name of each label; () if there are none.
    named: whether these names say which classes are meant; False if they are
      numbers that stand for an order which the data set does not tell.
  """

  values: np.ndarray
  class_names: tuple[str, ...]
  named: bool = True


def none(count: int) -> Labels:
  """Returns the labels of images without classes."""
  return Labels(np.zeros(count, np.int32), ())


def told_apart(names: Sequence[str]) -> list[str]:
  """Returns names, those that occur twice with their number behind them.

  The English words for two classes of ImageNet are the same.
  """
  counts = collections.Counter(names)
  return [f'{x} ({n})' if counts[x] > 1 else x for n, x in enumerate(names)]


def in_order_of_ids(labels: Labels) -> Labels:
  """Sorts the classes if all are WordNet ids, the order of the field's codes.

  Published networks for ImageNet count its classes in the order of their ids,
  and some copies of it in another.
  """
  names = labels.class_names
  if not names or not all(map(_WORDNET_ID.fullmatch, names)):
    return labels
  return translated(labels, tuple(sorted(names)), 'The data')


def translated(
  labels: Labels, class_names: Sequence[str] | None, data: str
) -> Labels:
  """Returns labels that count classes in another order, found by their names.

  Args:
    labels: the data set's own.
    class_names: the names of the labels 0, 1, 2, ... that are asked for. Labels
      without names must be indices into these already. None changes nothing,
      () gives all images the label 0.
    data: names the data set in an error.

  Raises:
    ValueError: the data set has classes that are not asked for.
  """
  own = labels.class_names
  if class_names is None or tuple(class_names) == own:
    return labels
  names = tuple(class_names)
  if not names:
    return none(len(labels.values))
  if not own:
    raise ValueError(
      f'{data} has no labels, but {len(names)} classes are expected, '
      f'{first_names(names)}. Use labelled data.'
    )
  if not labels.named:
    if len(own) > len(names):
      raise ValueError(
        f'{data} has labels up to {len(own) - 1}, but there are {len(names)} '
        'classes. Use data of the same classes.'
      )
    return Labels(labels.values, names)
  numbers = {name: n for n, name in enumerate(names)}
  strange = [name for name in own if name not in numbers]
  if strange:
    raise ValueError(
      f'{data} has {len(strange)} classes that are not among the {len(names)} '
      f'expected, first {strange[0]!r} (expected are {first_names(names)}). '
      'Use data of the same classes.'
    )
  # The last entry is that of the label -1.
  new = np.array([*(numbers[name] for name in own), -1], np.int32)
  return Labels(new[labels.values], names)
