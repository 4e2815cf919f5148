"""Reads the arrays of a PyTorch state dict (.pth) without PyTorch.

Both formats are read: today's .zip (`NAME/data.pkl` and `NAME/data/KEY`), and
the legacy format, four pickles followed by the storages. A pickle could run any
code, and these files come from the internet, so the pickles are interpreted by
`restricted_pickle`, which runs none. The arrays are views of what the file
holds: no number in it can ask for more memory than that.
"""

import io
import math
import os
import zipfile
from collections.abc import Callable
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

from cdm.models.pretrained import restricted_pickle
from cdm.models.pretrained.damaged_weights import DamagedWeights
from cdm.models.pretrained.restricted_pickle import Call, Name, Refused

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
  'HalfStorage': np.dtype('<f2'),
  'BFloat16Storage': np.dtype(jnp.bfloat16),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
}
_TENSORS = ('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2')
_PARAMETER = 'torch._utils._rebuild_parameter'
_NAMES = {
  *_TENSORS,
  _PARAMETER,
  *(
    f'{module}.{kind}'
    for module in ('torch', 'torch.storage')
    for kind in _TYPES
  ),
}
_MOST_AXES = 32


def read(path: str | os.PathLike, *parts: str) -> dict[str, np.ndarray]:
  """Reads a state dict.

  Args:
    path: path of the .pth file.
    *parts: keys of the state dict where the file holds a larger dict, as
      checkpoints of training do; the first that is there is taken, and the
      whole if none is.

  Returns:
    {name: array}; the arrays are read-only.

  Raises:
    DamagedWeights: the file is not a state dict, is cut off, or would run code.
    OSError: the file cannot be read.
  """
  try:
    with open(path, 'rb') as file:
      if zipfile.is_zipfile(file):
        values = _read_zip(file)
      else:
        file.seek(0)
        values = _read_legacy(file)
    if type(values) is dict:
      found = (values[part] for part in parts if type(values.get(part)) is dict)
      values = next(found, values)
    return _arrays(values)
  except (
    *(EOFError, KeyError, RuntimeError, OverflowError, ValueError),
    *(zipfile.BadZipFile, zipfile.LargeZipFile),
  ) as error:
    raise DamagedWeights(
      f'{path} cannot be read as a PyTorch state dict ({error}); it may be cut '
      'off or of another kind, so fetch it again.'
    ) from error


class _Storage:
  """A flat array that tensors are views of; its values may be read later."""

  def __init__(self, dtype: np.dtype, count: int):
    self.dtype, self.count = dtype, count
    self.values: Any = None  # an array [N] once it is read


class _Storages:
  """The storages that a pickle refers to, by their keys.

  Args:
    load: `(key, dtype, count) -> array [count]`, reads a storage; None leaves
      the values to be read later.
  """

  def __init__(self, load: Callable | None = None):
    self.by_key: dict[str, _Storage] = {}
    self._load = load

  def find(self, words: Any) -> _Storage:
    """Returns the storage of a persistent id."""
    if type(words) is not tuple or len(words) < 5 or words[0] != 'storage':
      raise Refused('it refers to something that is no storage')
    _, named, key, _, count, *_ = words
    if not isinstance(named, Name):
      raise Refused('it has a storage without a type')
    kind = named.name.rpartition('.')[2]
    if kind not in _TYPES:
      raise Refused(f'it refers to {named.name} as a type')
    if (
      type(key) is not str or type(count) is not int or not (0 <= count < 2**63)
    ):
      raise Refused('it has a storage without a key or a size')
    if key not in self.by_key:
      storage = self.by_key[key] = _Storage(_TYPES[kind], count)
      if self._load is not None:
        storage.values = self._load(key, storage.dtype, count)
    return self.by_key[key]


def _arrays(values: Any) -> dict[str, np.ndarray]:
  """Returns the arrays of a state dict, from what the pickle says of them."""
  if type(values) is not dict:
    raise Refused(f'it holds a {type(values).__name__} and no dict')
  arrays = {}
  for name, value in values.items():
    if isinstance(value, Call) and value.name == _PARAMETER:
      value = value.arguments[0] if value.arguments else None
    if isinstance(value, Call):
      if value.name not in _TENSORS:
        raise Refused(f'it calls {value.name}')
      if type(name) is not str:
        raise Refused(f'it has an array that is called {name}')
      arrays[name] = _tensor(name, value.arguments)
  return arrays


def _tensor(name: str, arguments: tuple) -> np.ndarray:
  """Returns a tensor as a view of its storage."""
  name = repr(name)[:100]  # it goes into messages, and may hold anything
  if len(arguments) < 4 or not isinstance(arguments[0], _Storage):
    raise Refused(f'{name} is a tensor without a storage')
  storage, offset, shape, strides = arguments[:4]
  numbers = [offset]
  for part in (shape, strides):
    if type(part) not in (tuple, list) or len(part) > _MOST_AXES:
      raise Refused(f'{name} is a tensor without a shape')
    numbers += part
  if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
    raise Refused(f'{name} is a tensor of an impossible shape')
  if len(shape) != len(strides):
    raise Refused(f'{name} has {len(shape)} axes and {len(strides)} strides')
  values, count = storage.values, math.prod(shape)
  if values is None:
    raise Refused(f'the numbers of {name} are missing')
  if count == 0:
    return np.zeros(0, storage.dtype).reshape(_empty(shape))
  # The sum below is of positive terms, and none may exceed the storage.
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  if count > len(values) or last >= len(values):
    raise Refused(
      f'{name} has {count:,} numbers, and the file holds {len(values):,} for it'
    )
  size = storage.dtype.itemsize
  return np.ndarray(
    tuple(shape),
    storage.dtype,
    values,
    offset * size,
    # An axis of one number may have any stride.
    [s * size if n > 1 else 0 for n, s in zip(shape, strides, strict=True)],
  )


def _empty(shape):
  """Returns the shape of an empty array, which NumPy wants to be small."""
  if max(shape) >= 2**31:
    raise Refused(f'an empty array has the shape {tuple(shape)}')
  return tuple(shape)


def _read_zip(file: IO[bytes]) -> Any:
  size = os.fstat(file.fileno()).st_size
  with zipfile.ZipFile(file) as archive:
    pickles = [n for n in archive.namelist() if n.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise Refused(f'it has {len(pickles)} members called data.pkl')
    folder = pickles[0].removesuffix('data.pkl')
    left = size  # members may not overlap, so they are no larger together

    def content(name):
      nonlocal left
      member = archive.getinfo(name)
      if member.flag_bits & 1:
        raise Refused(f'{name} is encrypted')
      if member.compress_type != zipfile.ZIP_STORED:
        raise Refused(f'{name} is compressed, as PyTorch never does')
      # zipfile asks the file for the larger of the two at once.
      left -= max(member.file_size, member.compress_size)
      if left < 0:
        raise Refused(f'{name} says that it has {member.file_size:,} bytes')
      return archive.read(member)  # which verifies the checksum

    def load(key, dtype, count):
      data = content(f'{folder}data/{key}')
      if count * dtype.itemsize > len(data):
        raise Refused(f'storage {key} has fewer than {count:,} numbers')
      return np.frombuffer(data, dtype, count)

    order = f'{folder}byteorder'
    if order in archive.namelist() and content(order) != b'little':
      raise Refused('its numbers are not little-endian')
    storages = _Storages(load)
    return restricted_pickle.load(
      io.BytesIO(content(pickles[0])), _NAMES, storages.find
    )


def _read_legacy(file: IO[bytes]) -> Any:
  if restricted_pickle.load(file) != _MAGIC:
    raise Refused("it does not begin with PyTorch's magic number")
  restricted_pickle.load(file)  # version of the format
  restricted_pickle.load(file)  # sizes of types on the machine that wrote it
  storages = _Storages()
  values = restricted_pickle.load(file, _NAMES, storages.find)
  keys = restricted_pickle.load(file)
  if type(keys) is not list or not all(type(key) is str for key in keys):
    raise Refused('it does not list its storages')
  size = os.fstat(file.fileno()).st_size
  for key in keys:
    if key not in storages.by_key:
      raise Refused('it has a storage that no array uses')
    storage = storages.by_key[key]
    (count,) = np.frombuffer(file.read(8), '<i8')
    length = int(count) * storage.dtype.itemsize
    if not 0 <= length <= size - file.tell():
      raise Refused(f'storage {key} is cut off')
    storage.values = np.frombuffer(file.read(length), storage.dtype)
  return values
