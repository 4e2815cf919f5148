import pickle
import zipfile

import numpy as np
import pytest

from cdm.models.pretrained import pytorch_file
from cdm.models.pretrained.damaged_weights import DamagedWeights

REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'


def whole(*numbers):
  """Returns opcodes of a tuple of integers."""
  return b'(' + b''.join(pickle.dumps(n, 2)[2:-1] for n in numbers) + b't'


def storage(kind='FloatStorage', count=6):
  """Returns opcodes of the storage '0'."""
  words = b'(X\x07\x00\x00\x00storagectorch\n' + kind.encode() + b'\n'
  return (
    words
    + b'X\x01\x00\x00\x000X\x03\x00\x00\x00cpu'
    + (pickle.dumps(count, 2)[2:-1] + b'tQ')
  )


def tensor(offset=0, shape=(6,), strides=(1,), **given):
  """Returns opcodes of a tensor in the storage '0'."""
  view = pickle.dumps(offset, 2)[2:-1] + whole(*shape) + whole(*strides)
  return REBUILD + b'(' + storage(**given) + view + b'tR'


VALUES = np.arange(6, dtype='<f4')


def write(
  path,
  value=None,
  data=None,
  *,
  names=('x/data.pkl',),
  order=None,
  compression=zipfile.ZIP_STORED,
):
  """Writes a file whose only entry, 'w', is what the opcodes make."""
  value = tensor() if value is None else value
  data = VALUES.tobytes() if data is None else data
  body = b'\x80\x02}X\x01\x00\x00\x00w' + value + b's.'
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name in names:
      archive.writestr(name, body)
    archive.writestr('x/data/0', data)
    if order is not None:
      archive.writestr('x/byteorder', order)
  return path


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'w.pth'


@pytest.mark.parametrize(
  ('view', 'expected'),
  [
    (dict(), VALUES),
    (dict(offset=2, shape=(2, 2), strides=(1, 2)), [[2, 4], [3, 5]]),
    (dict(offset=5, shape=(1,), strides=(99,)), [5]),
    (dict(offset=5, shape=(1, 1), strides=(7, 0)), [[5]]),
    (dict(offset=1, shape=(), strides=()), 1),
    (dict(shape=(3,), strides=(0,)), [0, 0, 0]),
    (dict(shape=(0, 2), strides=(2, 1)), np.zeros((0, 2))),
    (dict(offset=99, shape=(2, 0), strides=(1, 1)), np.zeros((2, 0))),
  ],
)
def test_a_tensor_is_a_view_of_its_storage(path, view, expected):
  found = pytorch_file.read(write(path, tensor(**view)))['w']
  np.testing.assert_array_equal(found, expected)
  assert found.shape == np.shape(expected) and found.dtype == np.float32


@pytest.mark.parametrize(
  ('kind', 'dtype'),
  [
    ('DoubleStorage', 'f8'),
    ('HalfStorage', 'f2'),
    ('LongStorage', 'i8'),
    ('IntStorage', 'i4'),
    ('ByteStorage', 'u1'),
    ('BoolStorage', '?'),
  ],
)
def test_every_type_of_number_has_its_size(path, kind, dtype):
  values = np.array([0, 1, 1], dtype)
  opcodes = tensor(shape=(3,), kind=kind, count=3)
  found = pytorch_file.read(write(path, opcodes, values.tobytes()))['w']
  assert found.dtype == dtype
  np.testing.assert_array_equal(found, values)


def test_a_parameter_is_its_tensor_and_what_is_no_array_is_left_out(path):
  parameter = b'ctorch._utils\n_rebuild_parameter\n' + tensor() + b'\x88}\x87R'
  np.testing.assert_array_equal(
    pytorch_file.read(write(path, parameter))['w'], VALUES
  )
  empty = b'ctorch._utils\n_rebuild_parameter\n)R'
  for value in (empty, b'K\x05', b'X\x01\x00\x00\x00a'):
    assert pytorch_file.read(write(path, value)) == {}


@pytest.mark.parametrize(
  ('given', 'told'),
  [
    (dict(names=()), 'it has 0 members called data.pkl'),
    (dict(names=('x/data.pkl', 'y/data.pkl')), '2 members called data.pkl'),
    (dict(compression=zipfile.ZIP_DEFLATED), 'compressed, as PyTorch never'),
    (dict(order=b'big'), 'not little-endian'),
    (dict(data=VALUES[:5].tobytes()), 'storage 0 has fewer than 6 numbers'),
    (dict(value=tensor(count=-1)), 'without a key or a size'),
    (dict(value=tensor(kind='FloatTensor')), 'refers to torch.FloatTensor'),
    (dict(value=tensor(offset=6, shape=(1,))), 'has 1 numbers, and .* holds 6'),
    (dict(value=tensor(shape=(2,), strides=(6,))), 'has 2 numbers'),
    (dict(value=tensor(shape=(0,), strides=(1,)), data=b''), 'fewer than 6'),
    (
      dict(value=tensor(shape=(0, 2**31), strides=(1, 1))),
      'an empty array has the shape',
    ),
    (dict(value=REBUILD + b')R'), "'w' is a tensor without a storage"),
    (
      dict(value=REBUILD + b'(K\x01K\x02K\x03K\x04tR'),
      "'w' is a tensor without a storage",
    ),
    (dict(value=b'ctorch\nFloatStorage\n)R'), 'it calls torch.FloatStorage'),
    (dict(value=b'K\x01Q'), 'something that is no storage'),
  ],
)
def test_what_no_state_dict_has_is_refused(path, given, told):
  with pytest.raises(DamagedWeights, match=told):
    pytorch_file.read(write(path, **given))


def test_the_largest_that_is_allowed_is_read(path):
  assert pytorch_file.read(write(path, order=b'little'))['w'].size == 6
  axes = tensor(offset=5, shape=(1,) * 32, strides=(1,) * 32)
  assert pytorch_file.read(write(path, axes))['w'].ndim == 32
  shape = (0, 2**31 - 1)
  found = pytorch_file.read(write(path, tensor(shape=shape, strides=(1, 1))))
  assert found['w'].shape == shape


def test_an_encrypted_member_is_refused(path):
  data = bytearray(write(path).read_bytes())
  at = data.index(b'PK\x01\x02')  # the entry of data.pkl in the directory
  data[at + 8] |= 1
  path.write_bytes(bytes(data))
  with pytest.raises(DamagedWeights, match='data.pkl is encrypted'):
    pytorch_file.read(path)


def test_members_are_together_no_larger_than_the_file(path):
  """A directory may say that each of many members is the whole file."""
  data = bytearray(write(path).read_bytes())
  at = data.rindex(b'PK\x01\x02')  # the entry of x/data/0
  for field in (20, 24):
    data[at + field : at + field + 4] = len(data).to_bytes(4, 'little')
  path.write_bytes(bytes(data))
  with pytest.raises(DamagedWeights, match='says that it has'):
    pytorch_file.read(path)
