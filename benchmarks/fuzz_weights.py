"""Makes small files of weights for `fuzz`, without PyTorch or TensorFlow."""

import io
import pickle
import struct
import zipfile

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C


def pytorch():
  """-> bytes of a state dict in the zip and in the legacy format, [2]."""
  values = [np.arange(24, dtype='<f4'), np.arange(6, dtype='<i8')]
  body = _pickled(values)
  zipped = io.BytesIO()
  with zipfile.ZipFile(zipped, 'w') as archive:
    archive.writestr('w/data.pkl', body)
    archive.writestr('w/byteorder', 'little')
    for i, value in enumerate(values):
      archive.writestr(f'w/data/{i}', value.tobytes())
  legacy = [pickle.dumps(part, protocol=2) for part in (_MAGIC, 1001, {})]
  legacy += [body, pickle.dumps(['0', '1'], protocol=2)]
  for value in values:
    legacy.append(struct.pack('<q', value.size) + value.tobytes())
  return [zipped.getvalue(), b''.join(legacy)]


def _pickled(values):
  """-> the pickle that torch.save writes, put together by hand."""
  pickled = b'\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01('
  kinds = {'<f4': b'Float', '<i8': b'Long'}
  for i, value in enumerate(values):
    kind = kinds[value.dtype.str]
    pickled += _text(f'layer.{i}') + b'ctorch._utils\n_rebuild_tensor_v2\n(('
    pickled += _text('storage') + b'ctorch\n' + kind + b'Storage\n'
    pickled += _text(str(i)) + _text('cpu') + b'K' + bytes([value.size])
    pickled += b'tQK\x00K\x02K' + bytes([value.size // 2]) + b'\x86K'
    pickled += bytes([value.size // 2]) + b'K\x01\x86\x89h\x00)RtR'
  return pickled + b'u}' + _text('_metadata') + b'}sb.'


def _text(value):
  data = value.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def graph():
  """-> bytes of a frozen graph with four constants."""
  content = np.arange(6, dtype='<f4').tobytes()
  shape = _message(2, _number(1, 2)) + _message(2, _number(1, 3))
  stored = _number(1, 1) + _message(2, shape) + _message(4, content)
  one = struct.pack('<f', 0.5)
  repeated = _number(1, 1) + _message(2, shape) + _message(5, one)
  short = _number(1, 1) + _message(2, shape) + _message(5, one * 2)
  whole = _number(1, 3) + _message(2, shape)
  nodes = (stored, repeated, short, whole)
  return b''.join(
    _message(1, _node(f'layer/{i}', tensor)) for i, tensor in enumerate(nodes)
  )


def _node(name, tensor):
  entry = _message(1, b'value') + _message(2, _message(8, tensor))
  return _message(1, name.encode()) + _message(2, b'Const') + _message(5, entry)


def _message(number, data):
  return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number, value):
  return _varint(number << 3) + _varint(value)


def _varint(value):
  data = b''
  while value > 127:
    data += bytes([value & 127 | 128])
    value >>= 7
  return data + bytes([value])
