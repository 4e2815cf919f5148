"""Keeps where the images in an archive are, so that a start need not scan it.

To find the 1.28 million members of ImageNet's tar, as many headers are read,
which takes minutes on a fast disk and an hour on a slow one. What was found is
kept beside the archive, in FOLDER/.cdm-index, or, where that cannot be written,
in the place of `folder_index`. It is used again while the archive has the same
size and modification time.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from cdm.data import folder_index, npz_arrays
from cdm.data.files import atomic_files, json_file
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms.packed_names import PackedNames

LEAST_RECORDS = 1000  # fewer are found as fast as the list is read
_VERSION = 1


class Records(NamedTuple):
  """The images in one archive.

  Attributes:
    names: the name of each.
    offsets: int64 [N], where its bytes begin.
    sizes: int64 [N], how many there are.
    labels: int32 [N], what the archive says of its class; the form that reads
      it defines what the numbers mean.
    left_out: see `picture_files.Listing`.
  """

  names: PackedNames
  offsets: np.ndarray
  sizes: np.ndarray
  labels: np.ndarray
  left_out: dict[str, int]


def records_of(
  path: str | os.PathLike[str],
  scan: Callable[[], Records],
  *,
  kind: str,
) -> Records:
  """Returns the records of an archive, kept ones if there are any.

  Args:
    path: the archive.
    scan: finds them.
    kind: changes when `scan` would find something else in the same archive.

  Raises:
    OSError: the archive cannot be read.
    Exception: whatever `scan` raises.
  """
  state = os.stat(path)
  stamp = f'{_VERSION} {kind} {state.st_size} {state.st_mtime_ns}'
  for place in _candidates(path):
    found = _read(place, stamp, state.st_size)
    if found is not None:
      return found
  began = time.time_ns()
  records = scan()
  # A change within the tick of the clock of a disk would not show.
  settled = state.st_mtime_ns < began - folder_index.SETTLED_S * 1e9
  if settled and len(records.names) >= LEAST_RECORDS:
    _keep(records, stamp, path)
  return records


def _candidates(path) -> list[pathlib.Path]:
  """Returns the files in which the records of an archive may be kept."""
  path = pathlib.Path(os.path.realpath(path))
  found = [path.parent / folder_index.FOLDER / f'{path.name}.npz']
  elsewhere = folder_index.places().elsewhere
  if elsewhere is not None:
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    with contextlib.suppress(OSError):
      found.append(pathlib.Path(elsewhere(), f'{name}.npz'))
  return found


def _read(place, stamp, file_bytes) -> Records | None:
  """Returns kept records; None if there are none, or they are of another."""
  try:
    arrays = npz_arrays.read(place)
    if str(arrays['stamp']) != stamp:
      return None
    names = PackedNames(arrays['names'], arrays['ends'])
    left_out = json_file.parse(
      str(arrays['left_out']).encode(),
      dict[str, int],
      name=str(place),
      remedy='',
    )
    found = Records(
      names, arrays['offsets'], arrays['sizes'], arrays['labels'], left_out
    )
  except (OSError, KeyError, DamagedFile, npz_arrays.UnexpectedContent):
    return None
  return found if _is_sound(found, file_bytes) else None


def _is_sound(records, file_bytes):
  """Whether kept records can be those of an archive of that many bytes."""
  names, offsets, sizes, labels, _ = records
  wanted: list[tuple[Any, Any]] = [
    (names.data, np.uint8), (names.ends, np.int64), (offsets, np.int64),
    (sizes, np.int64), (labels, np.int32),
  ]  # fmt: skip
  if any(array.dtype != dtype or array.ndim != 1 for array, dtype in wanted):
    return False
  if not len(names) == len(offsets) == len(sizes) == len(labels) > 0:
    return False
  ends = np.concatenate([[0], names.ends])
  return (
    (np.diff(ends) >= 0).all()
    and ends[-1] == len(names.data)
    and min(offsets.min(), sizes.min()) >= 0
    and max(offsets.max(), sizes.max()) <= file_bytes
    and (offsets + sizes).max() <= file_bytes
  )


def _keep(records: Records, stamp: str, path: str | os.PathLike[str]) -> None:
  """Keeps records in the first place that can be written."""
  reasons: list[str] = []
  for place in _candidates(path):
    try:
      place.parent.mkdir(exist_ok=True, parents=True)
      with (
        atomic_files.write_atomically(place) as partial,
        open(partial, 'wb') as file,
      ):
        np.savez_compressed(
          file,
          stamp=np.array(stamp),
          names=records.names.data,
          ends=records.names.ends,
          offsets=records.offsets,
          sizes=records.sizes,
          labels=records.labels,
          left_out=np.array(json.dumps(records.left_out)),
        )
      return
    except OSError as error:
      reasons.append(str(error))
  logging.warning(
    'The list of the %d images in %s cannot be kept, so that each start scans '
    'it: %s',
    len(records.names),
    path,
    '; '.join(reasons),
  )
