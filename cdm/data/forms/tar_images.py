"""Lists the images in tars, and keeps the list, so that a start need not scan.

To find the 1.28 million members of ImageNet's tar, as many headers are read,
which takes minutes on a fast disk and an hour on a slow one. See `kept_scan`
for where the list is kept and when it is used again.
"""

import collections
import json
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from cdm.data.files import json_file
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import kept_scan
from cdm.data.forms.packed_names import PackedNames
from cdm.data.forms.tar_index import Member

PROGRESS_AFTER_S = 5.0  # a shorter scan shows no progress
_TYPES = {
  'names': np.uint8,
  'ends': np.int64,
  'offsets': np.int64,
  'sizes': np.int64,
  'labels': np.int32,
  'counts': np.int64,
  'left_out': np.uint8,
}


class Labelled(NamedTuple):
  """An image in a tar; what its label means, the form that reads it defines."""

  member: Member
  label: int


class TarImages(NamedTuple):
  """The images in several tars, those of the first tar first.

  Attributes:
    names: the name of each.
    offsets: int64 [N], where its bytes begin in its tar.
    sizes: int64 [N], how many there are.
    labels: int32 [N], see `Labelled`.
    counts: int64 [T], how many images each tar holds.
    left_out: see `picture_files.Listing`.
  """

  names: PackedNames
  offsets: np.ndarray
  sizes: np.ndarray
  labels: np.ndarray
  counts: np.ndarray
  left_out: dict[str, int]


def find(
  tars: Sequence[str],
  scan: Callable[[str, collections.Counter[str]], Sequence[Labelled]],
  *,
  kind: str,
) -> TarImages:
  """Returns the images in tars, from a kept list if there is one.

  Args:
    tars: their paths.
    scan: returns the images in one tar in their order, and counts what it
      leaves out.
    kind: the name of the form and all options that `scan` depends on.

  Raises:
    OSError: a tar cannot be read.
    Exception: whatever `scan` raises.
  """

  def scan_all():
    return _scan_all(tars, scan)

  kept = kept_scan.scanned(kind, tars, scan_all, _TYPES)
  # A kept list that somebody has changed is not believed.
  return _images(kept, tars) or _images(scan_all(), tars) or _refuse(tars)


def _scan_all(tars, scan) -> kept_scan.Arrays:
  left_out = collections.Counter()
  found, counts = [], []
  bar = tqdm.tqdm(
    tars,
    unit='tar',
    desc=os.path.dirname(tars[0]),
    delay=PROGRESS_AFTER_S,
    disable=len(tars) == 1,
  )
  for tar in bar:
    images = scan(tar, left_out)
    counts.append(len(images))
    found += images
  names = PackedNames.of(image.member.name for image in found)
  return {
    'names': names.data,
    'ends': names.ends,
    'offsets': np.array([i.member.offset for i in found], np.int64),
    'sizes': np.array([i.member.size for i in found], np.int64),
    'labels': np.array([i.label for i in found], np.int32),
    'counts': np.array(counts, np.int64),
    'left_out': np.frombuffer(json.dumps(left_out).encode(), np.uint8),
  }


def _images(arrays, tars) -> TarImages | None:
  """Returns arrays as images; None if they cannot be those of the tars."""
  names = PackedNames(arrays['names'], arrays['ends'])
  offsets, sizes, labels = (arrays[k] for k in ('offsets', 'sizes', 'labels'))
  counts = arrays['counts']
  lengths = {len(names), len(offsets), len(sizes), len(labels), counts.sum()}
  if len(counts) != len(tars) or len(lengths) > 1 or counts.min() < 0:
    return None
  begins = np.concatenate([[0], names.ends])
  if (np.diff(begins) < 0).any() or begins[-1] != len(names.data):
    return None
  ends = np.repeat([os.path.getsize(tar) for tar in tars], counts)
  if (offsets < 0).any() or (sizes < 0).any() or (sizes > ends).any():
    return None
  if (offsets > ends - sizes).any():
    return None
  try:
    left_out = json_file.parse(
      arrays['left_out'].tobytes(), dict[str, int], name='', remedy=''
    )
  except DamagedFile:
    return None
  return TarImages(names, offsets, sizes, labels, counts, left_out)


def _refuse(tars):
  raise DamagedFile(
    f'{tars[0]} has changed while it was read. Start the same command again '
    'when it is complete.'
  )
