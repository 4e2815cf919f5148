"""Reads the constants of a frozen TensorFlow graph without TensorFlow.

A GraphDef is a protocol buffer. The fields read here, by number, are:

  GraphDef     1 node
  NodeDef      1 name, 2 op, 5 attr (a map: 1 key, 2 value)
  AttrValue    8 tensor
  TensorProto  1 dtype, 2 shape, 4 content, 5 float_val
  Shape        2 dim (1 size)
"""

import struct

import numpy as np

_FLOAT = 1  # DT_FLOAT
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def constants(data: bytes, name: str = 'The graph') -> dict[str, np.ndarray]:
  """Reads every float32 constant of a graph.

  Args:
    data: bytes of a serialised GraphDef.
    name: name of the graph in error messages.

  Returns:
    {name of the node: float32 array}.

  Raises:
    ValueError: data is not a GraphDef, is cut off, or holds no constants.
  """
  try:
    nodes = [_fields(node) for node in _fields(data).get(1, ())]
    arrays = dict(filter(None, map(_constant, nodes)))
  except (IndexError, TypeError, struct.error, ValueError) as error:
    raise ValueError(
      f'{name} cannot be read as a frozen TensorFlow graph ({error}); it may '
      'be cut off, so fetch it again.'
    ) from error
  if not arrays:
    raise ValueError(f'{name} holds no constants: it is not a frozen graph.')
  return arrays


def _constant(node: dict[int, list]) -> tuple[str, np.ndarray] | None:
  """Returns (name, array) of a NodeDef's fields; None if not float32 Const."""
  if node.get(2, [b''])[0] != b'Const':
    return None
  for entry in map(_fields, node.get(5, ())):
    if entry[1][0] == b'value':
      tensor = _fields(_fields(entry[2][0])[8][0])
      if tensor.get(1, [0])[0] != _FLOAT:
        return None
      return node[1][0].decode(), _array(tensor)
  return None


def _array(tensor: dict[int, list]) -> np.ndarray:
  """Returns the float32 array of a TensorProto's fields."""
  shape = [
    _fields(dim).get(1, [0])[0]
    for dim in _fields(tensor.get(2, [b''])[0]).get(2, ())
  ]
  content = tensor.get(4, [b''])[0]
  if content:
    return np.frombuffer(content, '<f4').reshape(shape)
  # Field 5 is packed or holds one value each; TensorFlow leaves out repetitions
  # of the last value at the end.
  values = b''.join(tensor.get(5, ()))
  values = np.frombuffer(values, '<f4')
  count = int(np.prod(shape))
  if not len(values) and count:
    return np.zeros(shape, np.float32)
  filled = np.resize(values[-1:], count)
  filled[: len(values)] = values
  return filled.reshape(shape)


def _fields(data: bytes) -> dict[int, list]:
  """Parses a serialised message into {field number: [values]}.

  Values are int for varints, else bytes.
  """
  fields, at = {}, 0
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
  return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
  """Parses the varint at byte `at`; returns (value, index of the next byte)."""
  value = shift = 0
  while True:
    byte = data[at]
    value |= (byte & 0x7F) << shift
    at, shift = at + 1, shift + 7
    if byte < 0x80:
      return value, at
