"""Labelled pictures of an .npz: what `cdm sample` wrote, as a data set.

`arr_0` is uint8 [N, H, W, 3] and `arr_1` int [N], as [ADM]'s evaluator has
them. What is stored uncompressed is read in place: a million samples take no
memory. The names of the classes stand in `classes.json` beside the archive.
"""

import hashlib
import json
import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np

NAMES = 'classes.json'
_HEADER_BYTES = 30  # of a file inside a zip, before its name


class Archive:
  """The pictures of one .npz, in their order."""

  def __init__(self, path, class_names=None):
    """Opens it.

    Args:
      path: of the .npz.
      class_names: the meaning of the classes 0, 1, 2, ...; the archive's
        labels are translated by name where it names its own, and taken as
        they are where it does not. None: its own names, or numbers.

    Raises:
      ValueError: no such file, damaged, without labels, or of classes that
        are not among `class_names`.
    """
    self.path = os.path.expanduser(path)
    if not os.path.isfile(self.path):
      raise ValueError(f'{self.path} is not there; it is an .npz of pictures.')
    self._open()
    labels = _array(self.path, 'arr_1')
    if labels.shape != (len(self._images),) or labels.dtype.kind not in 'iu':
      raise ValueError(
        f'arr_1 of {self.path} is {labels.dtype} {labels.shape}; expected are '
        f'labels, int [{len(self._images)}].'
      )
    own = self.own_names()
    self.named = own is not None  # or its labels are numbers and no more
    if own is not None and class_names is not None:
      labels = _translated(labels, own, tuple(class_names), self.path)
    names = own if class_names is None else class_names
    if names is None:
      names = [str(n) for n in range(int(labels.max()) + 1)]
    self.class_names = tuple(names)
    self.num_classes = len(self.class_names)
    if not 0 <= labels.min() <= labels.max() < self.num_classes:
      raise ValueError(
        f'{self.path} has labels from {labels.min()} to {labels.max()}, but '
        f'there are {self.num_classes} classes, 0 to {self.num_classes - 1}.'
      )
    self.labels = labels.astype(np.int32)

  def _open(self):
    self._images = _array(self.path, 'arr_0')
    if self._images.dtype != np.uint8 or self._images.ndim != 4:
      raise ValueError(
        f'arr_0 of {self.path} is {self._images.dtype} {self._images.shape}; '
        'expected are uint8 levels [N, H, W, 3].'
      )
    if not len(self._images) or self._images.shape[3] != 3:
      raise ValueError(
        f'arr_0 of {self.path} is {self._images.shape}; expected are one '
        'picture or more, [N, H, W, 3].'
      )

  def own_names(self):
    """-> names of the classes that stand beside the archive, or None."""
    path = pathlib.Path(self.path).with_name(NAMES)
    return json.loads(path.read_text()) if path.is_file() else None

  def __getstate__(self):  # opened again in a worker process
    return {k: v for k, v in self.__dict__.items() if k != '_images'}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._open()

  def __len__(self):
    return len(self._images)

  @property
  def fingerprint(self):
    """Of size and labels: reading all pixels would take as long as an epoch."""
    digest = hashlib.sha256(repr(self._images.shape).encode())
    digest.update(self.labels.tobytes())
    digest.update(np.ascontiguousarray(self._images[0]).tobytes())
    digest.update(np.ascontiguousarray(self._images[-1]).tobytes())
    return f'archive:{digest.hexdigest()[:16]}'

  def __getitem__(self, i):
    image = np.array(self._images[i])
    return {
      'image': image,
      'label': self.labels[i],
      'short_side': np.int32(min(image.shape[:2])),
    }


def count(path):
  """-> pictures of an .npz. Raises ValueError, OSError: it has none."""
  return len(_array(path, 'arr_0'))


def _translated(labels, own, names, path):
  """Labels that count `own` names -> labels that count `names`."""
  strange = [name for name in own if name not in names]
  if strange:
    raise ValueError(
      f'{path} has {len(strange)} classes that are not among the '
      f'{len(names)} wanted, first {strange[0]!r} (wanted are {names[0]!r}, '
      '...). Use data of the same classes.'
    )
  if len(labels) and not 0 <= labels.min() <= labels.max() < len(own):
    raise ValueError(
      f'{path} has labels from {labels.min()} to {labels.max()}, but names '
      f'{len(own)} classes in {NAMES} beside it.'
    )
  return np.array([names.index(name) for name in own])[labels]


def _array(path, name):
  """-> an array of an .npz, mapped where it is stored as it is."""
  member = f'{name}.npy'
  try:
    with zipfile.ZipFile(path) as archive:
      if member not in archive.namelist():
        held = [n.removesuffix('.npy') for n in archive.namelist()]
        raise _Absent(
          f'{path} has no {name} but {held}; arr_0 are the pictures, arr_1 '
          'their labels (`cdm sample` writes them where the stages have '
          'classes).'
        )
      info = archive.getinfo(member)
      if info.compress_type == zipfile.ZIP_STORED:
        return _mapped(path, info)
      with archive.open(member) as file:
        return np.lib.format.read_array(file)
  except _Absent:
    raise
  except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as e:
    raise ValueError(
      f'{path} cannot be read as an .npz archive ({e}); it may be truncated, '
      'so write it again.'
    ) from e


class _Absent(ValueError):
  """An array that the archive does not hold."""


def _mapped(path, info):
  """-> read-only memmap of a member that is stored uncompressed."""
  with open(path, 'rb') as file:
    file.seek(info.header_offset)
    header = file.read(_HEADER_BYTES)
    # The sizes of name and extra field are those of this header, not of the
    # directory at the end, whose extra field may be another.
    name_size, extra_size = struct.unpack('<HH', header[26:30])
    file.seek(info.header_offset + _HEADER_BYTES + name_size + extra_size)
    version = np.lib.format.read_magic(file)
    read = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
      raise ValueError(f'.npy version {version} is not known')
    shape, fortran, dtype = read[version](file)
    offset = file.tell()
  if dtype.hasobject:
    raise ValueError('it holds Python objects')
  order = 'F' if fortran else 'C'
  return np.memmap(path, dtype, 'r', offset, shape, order)
