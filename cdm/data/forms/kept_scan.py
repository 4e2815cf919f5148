"""Keeps what a scan of large files has found, so that a start need not scan.

To list the records of a table or an archive of 150 GB, its headers are read,
and on a network disk that takes minutes. What was found is kept in the folder
of the files, FOLDER/.cdm-index, or elsewhere if that cannot be written, and is
used again while every file has the same size and modification time.
"""

import contextlib
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from cdm.data import folder_index, npz_arrays
from cdm.data.files import atomic_files
from cdm.data.files.damaged_file import DamagedFile

LEAST_SECONDS = 1.0  # a scan that takes less is made again at each start
Arrays = dict[str, np.ndarray]
_MADE_FROM, _PREFIX = 'made_from', 'found_'


def scanned(
  what: str,
  files: Sequence[str],
  scan: Callable[[], Arrays],
  types: Mapping[str, Any],
) -> Arrays:
  """Returns what a scan of files finds, from a kept scan if there is one.

  Args:
    what: the form and all options that the result depends on besides the files,
      such as 'tfrecords 1'. Change it when the scan finds other things.
    files: paths of the files.
    scan: reads them and returns one-dimensional arrays by name.
    types: the dtype of each array that `scan` returns.

  Raises:
    Exception: the error of `scan`.
    OSError: a file cannot be asked for its size.
  """
  began = time.time_ns()
  made_from, newest = _state(what, files)
  places = _places(what, files)
  for path in places:
    found = _read(path, made_from, types)
    if found is not None:
      return found
  result = scan()
  seconds = (time.time_ns() - began) / 1e9
  # Times of files count in ticks: a change in the tick of the scan would not
  # show.
  settled = newest < began - folder_index.SETTLED_S * 1e9
  if seconds >= LEAST_SECONDS and settled:
    _keep(places, {_MADE_FROM: np.frombuffer(made_from, np.uint8), **result})
  return result


def _state(what, files) -> tuple[bytes, int]:
  """Returns (digest of the files as they are, newest modification time)."""
  digest, newest = hashlib.sha256(what.encode()), 0
  for path in files:
    status = os.stat(path)
    text = f'\0{os.path.basename(path)}\0{status.st_size} {status.st_mtime_ns}'
    digest.update(text.encode(errors='surrogateescape'))
    newest = max(newest, status.st_mtime_ns)
  return digest.digest(), newest


def _places(what, files) -> list[pathlib.Path]:
  """Returns the files in which a scan may be kept, the best first."""

  def name(paths):
    text = '\0'.join((what, *paths)).encode(errors='surrogateescape')
    return f'{what.split()[0]}-{hashlib.sha256(text).hexdigest()[:16]}.npz'

  folder = os.path.dirname(os.path.abspath(files[0]))
  inside = [os.path.relpath(path, folder) for path in files]
  found = [pathlib.Path(folder, folder_index.FOLDER, name(inside))]
  elsewhere = folder_index.places().elsewhere
  if elsewhere is not None:
    with contextlib.suppress(OSError):
      real = [os.path.realpath(path) for path in files]
      found.append(pathlib.Path(elsewhere(), name(real)))
  return found


def _read(path, made_from, types) -> Arrays | None:
  """Returns a kept scan; None if there is none for the files as they are."""
  if not path.is_file():
    return None
  try:
    arrays = npz_arrays.read(path)
  except (OSError, ValueError, DamagedFile):
    return None
  found = {name.removeprefix(_PREFIX): a for name, a in arrays.items()}
  if found.pop(_MADE_FROM, np.zeros(0, np.uint8)).tobytes() != made_from:
    return None
  right = {name: (np.dtype(dtype), 1) for name, dtype in types.items()}
  there = {name: (array.dtype, array.ndim) for name, array in found.items()}
  return found if there == right else None


def _keep(places, arrays) -> None:
  """Keeps a scan in the first place that can be written."""
  reasons = []
  for path in places:
    try:
      path.parent.mkdir(parents=path is not places[0], exist_ok=True)
      with atomic_files.write_atomically(path) as partial:
        with open(partial, 'wb') as file:
          # NumPy's own arguments have names too, such as `file`.
          named = {_PREFIX + name: array for name, array in arrays.items()}
          np.savez_compressed(file, **named)
      return
    except OSError as error:
      reasons.append(str(error))
  logging.warning(
    'What was found in %s cannot be kept, so that each start reads it anew: %s',
    places[0].parent.parent,
    '; '.join(reasons),
  )
