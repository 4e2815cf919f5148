"""Labels that a data set stores as numbers, and the names beside it.

Nothing in the data says which classes the numbers stand for, unless a
`classes.json` lies beside them, see `class_names`.
"""

import os

import numpy as np

from cdm.data import class_names
from cdm.data.class_labels import Labels
from cdm.data.printable_name import printable

MOST_UNNAMED = 100_000  # classes, where no classes.json counts them


def labels_of(
  values: np.ndarray,
  *,
  data: str,
  folder: str | os.PathLike[str],
  count: int | None = None,
) -> Labels:
  """Returns labels whose classes are named by `classes.json`, or by numbers.

  Args:
    values: integers [N], from 0 on.
    data: names the data set in an error.
    folder: the folder in which `classes.json` is looked for.
    count: the number of classes, if the data tells it.

  Raises:
    ValueError: a label is below 0 or has no name.
  """
  smallest, largest = int(values.min()), int(values.max())
  if smallest < 0:
    raise ValueError(
      f'{printable(data)} has the label {smallest}; labels from 0 on were '
      'expected. Correct the labels, or read the images without classes '
      '(class_names=() in a config).'
    )
  names = class_names.read(folder)
  if names is None and max(largest, (count or 1) - 1) >= MOST_UNNAMED:
    raise ValueError(
      f'{printable(data)} has the label {largest} and no {class_names.FILE} '
      f'beside it. Without names, at most {MOST_UNNAMED:,} classes are '
      'allowed: write the names there, or correct the labels.'
    )
  named = names is not None
  names = names or list(map(str, range(max(largest + 1, count or 0))))
  if largest >= len(names):
    raise ValueError(
      f'{printable(data)} has labels up to {largest}, but {class_names.FILE} '
      f'beside it names {len(names)} classes. Correct that file, or remove it.'
    )
  return Labels(values.astype(np.int32), tuple(names), named)
