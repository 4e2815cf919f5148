"""Reads the constants of a frozen TensorFlow graph without TensorFlow.

A GraphDef is a protocol buffer. The fields read here, by number, are:

  GraphDef     1 node
  NodeDef      1 name, 2 op, 5 attr (a map: 1 key, 2 value)
  AttrValue    8 tensor
  TensorProto  1 dtype, 2 shape, 4 content, 5 float_val
  Shape        2 dim (1 size)
"""

import math
import struct
from typing import Any

import numpy as np

from cdm.models.pretrained.damaged_weights import DamagedWeights

_FLOAT = 1  # DT_FLOAT
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10  # of 64 bits
_MOST_AXES, _MOST_NUMBERS = 32, 2**31
_MOST_FIELDS = 1 << 20  # of one message; published graphs have thousands
_MOST_REPEATED = 1000  # numbers for each that is stored


def constants(data: bytes, name: str = 'The graph') -> dict[str, np.ndarray]:
  """Reads every float32 constant of a graph.

  Args:
    data: bytes of a serialised GraphDef.
    name: name of the graph in error messages.

  Returns:
    {name of the node: float32 array}; the arrays are read-only.

  Raises:
    DamagedWeights: data is not a GraphDef, is cut off, or holds no constants.
  """
  arrays = {}
  try:
    for node in _fields(memoryview(data)).get(1, ()):
      found = _constant(_fields(_message(node)))
      if found is not None:
        arrays[found[0]] = found[1]
  except (struct.error, ValueError) as error:
    raise DamagedWeights(
      f'{name} cannot be read as a frozen TensorFlow graph ({error}); it may '
      'be cut off, so fetch it again.'
    ) from error
  if not arrays:
    raise DamagedWeights(
      f'{name} holds no constants: it is not a frozen graph.'
    )
  return arrays


def _constant(node: dict[int, list]) -> tuple[str, np.ndarray] | None:
  """Returns (name, array) of a NodeDef's fields; None if not float32 Const."""
  if bytes(_message(_first(node, 2, b''))) != b'Const':
    return None
  name = bytes(_message(_first(node, 1, b'')))[:1000].decode()
  for entry in (_fields(_message(each)) for each in node.get(5, ())):
    if bytes(_message(_first(entry, 1, b''))) == b'value':
      value = _fields(_message(_first(entry, 2, b'')))
      if 8 not in value:
        raise ValueError(f'the constant {name!r} has no tensor')
      tensor = _fields(_message(value[8][0]))
      if _first(tensor, 1, 0) != _FLOAT:
        return None
      return name, _array(tensor, name)
  raise ValueError(f'the constant {name!r} has no value')


def _array(tensor: dict[int, list], name: str) -> np.ndarray:
  """Returns the float32 array of a TensorProto's fields."""
  axes = _fields(_message(_first(tensor, 2, b''))).get(2, ())
  shape = [_first(_fields(_message(axis)), 1, 0) for axis in axes]
  if len(shape) > _MOST_AXES or not all(
    isinstance(n, int) and n < _MOST_NUMBERS for n in shape
  ):
    raise ValueError(f'the constant {name!r} has an impossible shape')
  count = math.prod(shape)
  if content := _message(_first(tensor, 4, b'')):
    values = np.frombuffer(content, '<f4')
  else:
    # Field 5 is packed or holds one value each.
    values = np.frombuffer(b''.join(map(_message, tensor.get(5, ()))), '<f4')
    # TensorFlow leaves out repetitions of the last value at the end. They are
    # a view of that one value wherever there are no others.
    if len(values) <= 1:
      value = values if len(values) else np.zeros(1, np.float32)
      return np.broadcast_to(value[0], shape)
    if len(values) < count <= _MOST_REPEATED * len(values):
      last = np.broadcast_to(values[-1], count - len(values))
      values = np.concatenate([values, last])
  if len(values) != count:
    raise ValueError(
      f'the constant {name!r} has {len(values):,} numbers, and its shape '
      f'{shape} has {count:,}'
    )
  return values.reshape(shape)


def _first(fields: dict[int, list], number: int, absent: Any) -> Any:
  """Returns the first value of a field, or what stands for an absent one."""
  return fields.get(number, [absent])[0]


def _message(value: Any) -> memoryview:
  """Returns the bytes of a field that must not be a number."""
  if isinstance(value, int):
    raise ValueError('a number where a message is expected')
  return memoryview(value)


def _fields(data: memoryview) -> dict[int, list]:
  """Parses a serialised message into {field number: [values]}.

  Values are int for varints, else views of the bytes, so that messages inside
  each other are not copied.
  """
  fields, at, parsed = {}, 0, 0
  while at < len(data):
    key, at = _varint(data, at)
    number, kind = key >> 3, key & 7
    if kind == _VARINT:
      value, at = _varint(data, at)
    else:
      if kind == _BYTES:
        size, at = _varint(data, at)
      elif kind in (_FIXED64, _FIXED32):
        size = 8 if kind == _FIXED64 else 4
      else:
        raise ValueError(f'wire type {kind} at byte {at}')
      value = data[at : at + size]
      if len(value) != size:
        raise ValueError(f'{size} bytes expected at {at}, {len(value)} left')
      at += size
    fields.setdefault(number, []).append(value)
    parsed += 1
    if parsed > _MOST_FIELDS:
      raise ValueError(f'a message of more than {_MOST_FIELDS:,} fields')
  return fields


def _varint(data: memoryview, at: int) -> tuple[int, int]:
  """Parses the varint at byte `at`; returns (value, index of the next byte)."""
  value = 0
  for shift in range(0, 7 * _MOST_VARINT_BYTES, 7):
    if at >= len(data):
      raise ValueError(f'it ends in a number, at byte {at}')
    byte = data[at]
    value |= (byte & 0x7F) << shift
    at += 1
    if byte < 0x80:
      return value, at
  raise ValueError(f'a number of more than 64 bits before byte {at}')
