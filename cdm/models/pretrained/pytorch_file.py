"""Reads the arrays of a PyTorch state dict (.pth) without PyTorch.

Both formats are read: today's .zip (`NAME/data.pkl` and `NAME/data/KEY`), and
the legacy format, four pickles followed by the storages. A pickle could run any
code, and these files come from the internet, so the unpickler builds arrays and
dicts and refuses everything else.
"""

import collections
import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
}


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a state dict.

  Args:
    path: path of the .pth file.

  Returns:
    {name: array}.

  Raises:
    ValueError: the file is not a state dict, is cut off, or would run code.
  """
  try:
    if zipfile.is_zipfile(path):
      values = _read_zip(path)
    else:
      values = _read_legacy(path)
  except (
    *(EOFError, IndexError, KeyError, TypeError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, ValueError),
  ) as error:
    raise ValueError(
      f'{path} cannot be read as a PyTorch state dict ({error}); it may be cut '
      'off or of another kind, so fetch it again.'
    ) from error
  values = {
    name: value.array() if isinstance(value, _Tensor) else value
    for name, value in values.items()
  }
  return {k: v for k, v in values.items() if isinstance(v, np.ndarray)}


class _Storage:
  """A flat array that tensors are views of; its values may be read later."""

  def __init__(self, dtype: np.dtype):
    self.dtype = dtype
    self.values: Any = None  # an array [N] once it is read


class _Tensor:
  """A view of a storage that may not have been read yet."""

  def __init__(
    self,
    storage: _Storage,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],
    *_,
  ):
    self._view = storage, offset, shape, strides

  def array(self) -> np.ndarray:
    """Returns a copy of the values; raises ValueError if some are missing."""
    storage, offset, shape, strides = self._view
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    empty = 0 in shape
    if not empty and offset + last >= len(storage.values):
      raise ValueError(f'a tensor of shape {shape} exceeds its storage')
    size = storage.dtype.itemsize
    view = np.ndarray(
      shape,
      storage.dtype,
      np.ascontiguousarray(storage.values),
      offset * size,
      [s * size for s in strides],
    )
    return view.copy()


class _Unpickler(pickle.Unpickler):
  """Builds dicts, numbers and views of storages, and nothing else.

  Args:
    file: the pickle.
    load: `(key, dtype, count) -> array [count]`, reads a storage; None leaves
      the storages in `storages` empty, to be read later.
  """

  def __init__(self, file: IO[bytes], load: Callable | None = None):
    super().__init__(file, encoding='utf-8')
    self._load, self.storages = load, {}

  def find_class(self, module, name):
    if module == 'collections' and name == 'OrderedDict':
      return collections.OrderedDict
    if module == 'torch._utils':
      if name in ('_rebuild_tensor', '_rebuild_tensor_v2'):
        return _Tensor
      if name == '_rebuild_parameter':
        return lambda tensor, *_: tensor
    if module in ('torch', 'torch.storage') and name in _TYPES:
      return _TYPES[name]
    raise pickle.UnpicklingError(f'it refers to {module}.{name}')

  def persistent_load(self, words):
    kind, dtype, key, _, count, *_ = words
    if kind != 'storage' or not isinstance(dtype, np.dtype):
      raise pickle.UnpicklingError(f'it refers to a {kind}')
    if key not in self.storages:
      storage = self.storages[key] = _Storage(dtype)
      if self._load is not None:
        storage.values = self._load(key, dtype, count)
    return self.storages[key]


def _read_zip(path: str | os.PathLike) -> dict:
  with zipfile.ZipFile(path) as archive:
    (pickled,) = (n for n in archive.namelist() if n.endswith('/data.pkl'))
    folder = pickled.removesuffix('data.pkl')

    def load(key, dtype, count):
      return np.frombuffer(archive.read(f'{folder}data/{key}'), dtype, count)

    with archive.open(pickled) as file:
      return _Unpickler(file, load).load()


def _read_legacy(path: str | os.PathLike) -> dict:
  with open(path, 'rb') as file:
    if _Unpickler(file).load() != _MAGIC:
      raise ValueError("it does not begin with PyTorch's magic number")
    _Unpickler(file).load()  # version of the format
    _Unpickler(file).load()  # sizes of types on the machine that wrote it
    body = _Unpickler(file)
    values = body.load()
    for key in _Unpickler(file).load():
      storage = body.storages[key]
      count = int(np.frombuffer(file.read(8), '<i8')[0])
      data = file.read(count * storage.dtype.itemsize)
      storage.values = np.frombuffer(data, storage.dtype, count)
    return values
