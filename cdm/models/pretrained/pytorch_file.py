"""Reads the arrays of a PyTorch state dict (.pth), without PyTorch.

Both forms: the .zip of today (`NAME/data.pkl` and `NAME/data/KEY`), and the
one before, four pickles followed by the storages. The pickle may build nothing
but arrays and dicts: it comes from the network and is code otherwise.
"""

import collections
import pickle
import zipfile

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


def read(path):
  """Reads a state dict.

  Args:
    path: of the file.

  Returns:
    {name: array}.

  Raises:
    ValueError: it is no such file, is cut off, or would run code.
  """
  try:
    if zipfile.is_zipfile(path):
      found = _zipped(path)
    else:
      found = _piecewise(path)
  except (
    *(EOFError, IndexError, KeyError, TypeError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, ValueError),
  ) as error:
    raise ValueError(
      f'{path} cannot be read as a PyTorch state dict ({error}); it may be cut '
      'off or of another kind, so fetch it again.'
    ) from error
  found = {
    name: value.array() if isinstance(value, _Tensor) else value
    for name, value in found.items()
  }
  return {k: v for k, v in found.items() if isinstance(v, np.ndarray)}


class _Storage:
  """Numbers in a row, of which tensors are views; filled in later."""

  def __init__(self, dtype):
    self.dtype, self.values = dtype, None


class _Tensor:
  """A view of a storage that may not have been read yet."""

  def __init__(self, storage, offset, shape, strides, *_):
    self._view = storage, offset, shape, strides

  def array(self):
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
  """Builds dicts, numbers and views of storages, and nothing else."""

  def __init__(self, file, load=None):
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


def _zipped(path):
  with zipfile.ZipFile(path) as archive:
    (pickled,) = (n for n in archive.namelist() if n.endswith('/data.pkl'))
    folder = pickled.removesuffix('data.pkl')

    def load(key, dtype, count):
      return np.frombuffer(archive.read(f'{folder}data/{key}'), dtype, count)

    with archive.open(pickled) as file:
      return _Unpickler(file, load).load()


def _piecewise(path):
  with open(path, 'rb') as file:
    if _Unpickler(file).load() != _MAGIC:
      raise ValueError('it does not begin as one')
    _Unpickler(file).load()  # version of the form
    _Unpickler(file).load()  # sizes of types on the machine that wrote it
    body = _Unpickler(file)
    found = body.load()
    for key in _Unpickler(file).load():
      storage = body.storages[key]
      count = int(np.frombuffer(file.read(8), '<i8')[0])
      data = file.read(count * storage.dtype.itemsize)
      storage.values = np.frombuffer(data, storage.dtype, count)
    return found
