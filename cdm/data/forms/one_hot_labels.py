"""Reads labels that a .npy stores as rows in which one number is 1.

NVIDIA's programs write them beside TFRecords, as NAME-rxx.labels.
"""

import numpy as np

from cdm.data import class_labels
from cdm.data.class_labels import Labels
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.printable_name import printable

_ROWS = 4096  # compared at a time
_WITHOUT = (
  'read the images without classes (class_names=() in a config, --no_classes '
  'of `cdm prepare`)'
)


def read(path: str, count: int) -> Labels:
  """Returns the labels of `count` images; their classes have no names.

  Args:
    path: the file. It has no labels if its rows are empty.
    count: number of images.

  Raises:
    DamagedFile: the file is damaged, or is of another number of images.
    ValueError: its rows do not stand for one class each.
  """
  where = printable(path)
  try:
    # A map allocates nothing, whatever size the file says it has.
    stored = np.load(path, mmap_mode='r', allow_pickle=False)
  except (OSError, MemoryError) as error:
    if not_of_the_file(error) or isinstance(error, MemoryError):
      raise
    stored = None
  except Exception:  # NumPy raises nearly anything on damaged bytes.
    stored = None
  if not isinstance(stored, np.ndarray) or stored.dtype.kind not in 'fiub':
    raise DamagedFile(
      f'{where} cannot be read as an .npy of numbers. Copy or download it '
      f'again, or {_WITHOUT}.'
    )
  if stored.ndim != 2 or len(stored) != count:
    raise DamagedFile(
      f'{where} has the shape {stored.shape}, and a row for each of {count} '
      f'images was expected. Copy or download it again, or {_WITHOUT}.'
    )
  classes = stored.shape[1]
  if not classes:
    return class_labels.none(count)
  values = np.empty(count, np.int32)
  for begin in range(0, count, _ROWS):
    rows = stored[begin : begin + _ROWS]
    ones = rows == 1
    wrong = (ones.sum(1) != 1) | ((rows != 0).sum(1) != 1)
    if wrong.any():
      raise ValueError(
        f'Row {begin + int(wrong.argmax())} of {where} is not a class: one '
        'number of a row must be 1 and the others 0. Correct it, or '
        f'{_WITHOUT}.'
      )
    values[begin : begin + _ROWS] = ones.argmax(1)
  return Labels(values, tuple(map(str, range(classes))), named=False)
