"""Reads image-net.org's downsampled ImageNet, in batches of .npz, as a source.

Imagenet64_train_npz holds train_data_batch_1.npz to train_data_batch_10.npz,
and Imagenet64_val_npz holds val_data.npz. Each has the arrays `data`, uint8 [N,
3 S S], the planes of red, green and blue of every image; `labels`, from 1 on,
in the order of map_clsloc.txt; and `mean`, which is not used.

Nothing says that the pixels of a stored batch are those that were written: its
checksum is only compared where it is compressed, because reading all batches
would take minutes.
"""

import hashlib
import os
import re
import shlex
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from cdm.data import (
  class_labels,
  npz_arrays,
  numbered_labels,
  picture_files,
)
from cdm.data.class_labels import Labels
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import (
  byte_ranges,
  class_map,
  compressed_rows,
  foreign_content,
)
from cdm.data.printable_name import printable
from cdm.data.source import Element, element

_FILE = re.compile(r'(train)_data_batch_(\d+)(\.npz)?|(val)_data(\.npz)?')
_IMAGES, _LABELS = 'data', 'labels'
# What the set holds, [Downsampled ImageNet, arXiv:1707.08819].
_OFFICIAL = {'train': 1_281_167, 'val': 50_000}


class _Batch(NamedTuple):
  """One .npz.

  Attributes:
    path: its path.
    count: N.
    size: S.
    begin: where its images begin in the file; None if they are compressed.
    checksum: CRC-32 of its array of images, as the archive states it.
    labels: int64 [N], from 1 on.
  """

  path: str
  count: int
  size: int
  begin: int | None
  checksum: int
  labels: np.ndarray


class NpzBatches:
  """A source of the images in .npz batches; see `cdm.data.source`.

  It can be pickled, and several threads may read it at once.

  Attributes:
    path: what was opened.
    in_order: whether images are to be read in their order.
    image_size: S, pixels.
    labels: int32 [N].
    named: see `class_labels.Labels`.
    class_names: the name of each label; () if there are none.
    num_classes: number of labels.
    made_by: (crop, filter) of the publishers, see `transforms`.
  """

  made_by = ('squash', 'box')

  def __init__(
    self,
    path: str | os.PathLike[str],
    class_names: Iterable[str] | None = None,
    class_map: str | None = None,
    split: str | None = None,
    in_order: bool = False,
  ):
    """Opens all batches and reads their labels.

    Args:
      path: the folder of the batches, or one of them.
      class_names: the names of the labels 0, 1, 2, ... The classes are found by
        their WordNet ids. None takes these ids in their own order, () gives all
        images the label 0.
      class_map: path of map_clsloc.txt, which says which class has which
        number; None looks for it beside the batches. Without it the classes are
        called 'clsloc 1', 'clsloc 2', ...
      split: 'train' or 'val', where a folder holds the batches of both.
      in_order: whether the images are read once, in their order, as `cdm
        prepare` does. Batches that are compressed can only be read so.

    Raises:
      DamagedFile: a batch is damaged.
      ValueError: there are no batches, one is missing, or they are compressed
        or pickled, or have other classes.
    """
    self.path, self.in_order = os.path.expanduser(path), in_order
    files, split = _find(self.path, split)
    self._batches = [_open(file) for file in files]
    sizes = {batch.size: batch.path for batch in self._batches}
    if len(sizes) > 1:
      found = ' and '.join(f'{s} pixels in {p}' for s, p in sizes.items())
      raise ValueError(f'The batches have images of {found}. Keep them apart.')
    self.image_size = self._batches[0].size
    self._ends = np.cumsum([batch.count for batch in self._batches])
    self._check_compression(in_order)
    if split is not None and len(self) != _OFFICIAL[split]:
      logging.warning(
        '%s holds %d images; the set has %d in all batches of %r.',
        printable(self.path), len(self), _OFFICIAL[split], split,
      )  # fmt: skip
    numbers = np.concatenate([batch.labels for batch in self._batches])
    names = None if class_names is None else tuple(class_names)
    found = _labels(numbers, files[0], class_map, names)
    self.labels, self.class_names, self.named = found
    self.num_classes = len(self.class_names)
    self._readers = {}

  def _check_compression(self, in_order):
    for batch in self._batches:
      if batch.begin is None and not in_order:
        raise ValueError(
          f'{printable(batch.path)} is compressed, so no image in it can be '
          'read by itself. Prepare the set once, which reads it in order, and '
          f'train on that: cdm prepare --source={shlex.quote(self.path)} '
          f'--size={self.image_size} --out=DIR'
        )

  @staticmethod
  def holds(path: str) -> bool:
    """Returns whether a path is that of such batches, by their names."""
    try:
      names = [os.path.basename(path)]
      if os.path.isdir(path):
        names, path = os.listdir(path), os.path.join(path, '')
      return any(
        _FILE.fullmatch(name)
        and os.path.isfile(os.path.join(os.path.dirname(path), name))
        for name in names
      )
    except (OSError, ValueError):
      return False

  # The readers hold open files. A worker process opens them again.
  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {'_readers': {}}

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, i: int) -> Element:
    if not -len(self) <= i < len(self):
      raise IndexError(f'{self.path}[{i}] of {len(self)}')
    i %= len(self)
    number = int(np.searchsorted(self._ends, i, side='right'))
    batch = self._batches[number]
    row = i - int(self._ends[number]) + batch.count
    row_bytes = 3 * batch.size**2
    if batch.begin is None:
      data = self._reader(number, row_bytes).read(row)
    else:
      begin = batch.begin + row * row_bytes
      data = byte_ranges.read(batch.path, begin, row_bytes)
    planes = np.frombuffer(data, np.uint8)
    planes = planes.reshape(3, batch.size, batch.size)
    image = np.ascontiguousarray(planes.transpose(1, 2, 0))  # [S, S, 3]
    return element(image, self.labels[i])

  def _reader(self, number, row_bytes) -> compressed_rows.CompressedRows:
    reader = self._readers.get(number)
    if reader is None:
      path = self._batches[number].path
      reader = compressed_rows.CompressedRows(path, _IMAGES, row_bytes)
      # Another thread may have made one meanwhile.
      reader = self._readers.setdefault(number, reader)
      for old in list(self._readers):
        if abs(old - number) > 1:
          self._readers.pop(old, None)
    return reader

  @property
  def fingerprint(self) -> str:
    """A hash of the labels and of the checksums that the archives state."""
    digest = hashlib.sha256(repr(self.class_names).encode())
    digest.update(self.labels.tobytes())
    for batch in self._batches:
      numbers = (batch.count, batch.size, batch.checksum)
      digest.update(f'{numbers}\n'.encode())
    return f'npz_batches:{digest.hexdigest()[:16]}'


def _find(path, split) -> tuple[list[str], str | None]:
  """Returns (paths of the batches in order, their split if it is known)."""
  if split not in (None, *_OFFICIAL):
    raise ValueError(f"split is {split!r}; 'train' or 'val' was expected.")
  if not os.path.isdir(path):
    reason = picture_files.why_not_a_file(path)
    if reason is not None:
      raise ValueError(
        f'{printable(path)} {reason}; give a folder of train_data_batch_1.npz '
        'and its like, or one of them.'
      )
    _refuse_pickle(path, os.path.basename(path))
    return [path], None
  matches = filter(None, map(_FILE.fullmatch, sorted(os.listdir(path))))
  found: dict[str, dict[int, str]] = {}
  for match in matches:
    files = found.setdefault(match[1] or match[4], {})
    number = int(match[2] or 1)
    # A batch that is there in both ways is read from the .npz.
    if not files.get(number, '').endswith('.npz'):
      files[number] = match[0]
  if not found or (split is not None and split not in found):
    raise ValueError(
      f'{printable(path)} has no batches of downsampled ImageNet, such as '
      f'{"val_data.npz" if split == "val" else "train_data_batch_1.npz"}.'
    )
  if split is None and len(found) > 1:
    raise ValueError(
      f'{printable(path)} holds batches for training and val_data.npz. Set '
      "split to 'train' or to 'val'."
    )
  split = split or next(iter(found))
  files = found[split]
  missing = next((n for n in range(1, max(files)) if n not in files), None)
  if missing is not None:
    raise ValueError(
      f'{printable(path)} has the batches {", ".join(map(str, sorted(files)))} '
      f'but not {missing}. Download the missing part into the same folder.'
    )
  for name in files.values():
    _refuse_pickle(path, name)
  return [os.path.join(path, files[n]) for n in sorted(files)], split


def _refuse_pickle(path, name):
  match = _FILE.fullmatch(name)
  if match and not name.endswith('.npz'):
    raise ValueError(
      f'{printable(path)} has the pickled batch {name}. Pickles can run any '
      'program, so none is opened. Download the same set as npz '
      f'(Imagenet64_{match[1] or match[4]}_npz and its like), from the same '
      'page.'
    )


def _open(path) -> _Batch:
  """Reads the headers and the labels of a batch.

  Raises:
    DamagedFile: it is damaged.
    ValueError: it does not hold such arrays.
  """
  with open(path, 'rb') as file:
    if file.read(4) != b'PK\3\4':
      remedy = foreign_content.remedy(path)
      raise DamagedFile(f'{printable(path)} is no .npz. {remedy}')
  with npz_arrays.opened(path) as archive:
    names = npz_arrays.names(archive)
    if _IMAGES not in names or _LABELS not in names:
      raise npz_arrays.UnexpectedContent(
        f'{printable(path)} has the arrays {names}; {_IMAGES} and {_LABELS} '
        'were expected.'
      )
    header = npz_arrays.read_header(archive, _IMAGES)
    shape, dtype = header.shape, header.dtype
    size = round((shape[-1] / 3) ** 0.5) if len(shape) == 2 else 0
    if dtype != np.uint8 or header.fortran or shape != (shape[0], 3 * size**2):
      raise npz_arrays.UnexpectedContent(
        f'{_IMAGES} of {printable(path)} is {dtype} {shape}; uint8 [N, 3 S S] '
        'was expected, the planes of N colour images of S x S pixels.'
      )
    if min(shape) < 1:
      raise npz_arrays.UnexpectedContent(f'{printable(path)} has no images.')
    info = archive.getinfo(f'{_IMAGES}.npy')
    begin = None
    if not info.compress_type:
      begin = npz_arrays.data_offset(archive, _IMAGES) + header.begin
    labels = npz_arrays.read_array(archive, _LABELS)
    if labels.dtype.kind not in 'iu' or labels.shape != shape[:1]:
      raise npz_arrays.UnexpectedContent(
        f'{_LABELS} of {printable(path)} is {labels.dtype} {labels.shape}; a '
        f'number for each of the {shape[0]} images was expected.'
      )
    return _Batch(path, shape[0], size, begin, info.CRC, labels)


def _labels(numbers, file, map_path, class_names) -> Labels:
  """Returns the labels of all images.

  Args:
    numbers: int [N], as the batches have them.
    file: path of the first batch.
    map_path: see the argument class_map of `NpzBatches`.
    class_names: see there.
  """
  if class_names == ():
    return class_labels.none(len(numbers))
  beside = os.path.join(os.path.dirname(file), class_map.FILE)
  if map_path is None and os.path.exists(beside):
    map_path = beside
  names = None
  if map_path is not None:
    names = class_map.read(os.path.expanduser(map_path))
  most = numbered_labels.MOST_UNNAMED if names is None else len(names)
  if not 1 <= numbers.min() <= numbers.max() <= most:
    raise DamagedFile(
      f'{printable(file)} and the batches beside it have labels from '
      f'{numbers.min()} to {numbers.max()}; numbers from 1 to {most} were '
      'expected.'
    )
  if names is None:
    logging.warning(
      '%s has no %s beside it, so that its classes are numbers in an order of '
      'their own, which fit those of no other data. Set class_map.',
      printable(file), class_map.FILE,
    )  # fmt: skip
    names = tuple(f'clsloc {n}' for n in range(1, int(numbers.max()) + 1))
  found = Labels((numbers - 1).astype(np.int32), names)
  if class_names is None:
    return class_labels.in_order_of_ids(found)
  return class_labels.translated(found, class_names, printable(file))
