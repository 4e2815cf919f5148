"""A pickle makes plain values, calls nothing and changes nothing."""

import collections
import io
import os
import pickle

import numpy as np
import pytest
from support import published_weights

from cdm.distributed import exit_codes
from cdm.models.pretrained import (
  damaged_weights,
  pytorch_file,
  restricted_pickle,
)

Refused = restricted_pickle.Refused


def load(data, names=('a.b',)):
  return restricted_pickle.load(io.BytesIO(data), names)


PLAIN = {
  'none': None,
  'numbers': [0, -1, 255, 65535, 2**31, 2**100, 1.5, True, False],
  'texts': ['', 'Hündin', 'x' * 300, b'bytes'],
  'tuples': ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
  'inside': {'a': {3: []}},
}


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_plain_values_come_back_of_every_protocol(protocol):
  value = PLAIN if protocol > 2 else PLAIN | {'texts': ['a', 'é']}
  assert load(pickle.dumps(value, protocol)) == value
  ordered = collections.OrderedDict(a=1, b=[2])
  assert load(pickle.dumps(ordered, protocol)) == {'a': 1, 'b': [2]}


class Evil:
  def __reduce__(self):
    return os.mkdir, ('evil',)


@pytest.mark.parametrize(
  ('data', 'told'),
  [
    (pickle.dumps(Evil(), 2), r'refers to (posix|nt)\.mkdir'),
    (pickle.dumps(Evil(), 4), r'refers to (posix|nt)\.mkdir'),
    (pickle.dumps(Evil(), 0), 'refers to'),
    (
      b'ca\nb\n}(X\x01\x00\x00\x00xK\x01ub.',
      'stores into what is no',
    ),  # BUILD
    (b'ca\nb\n)\x81.', 'operation NEWOBJ'),
    (b'ca\nb\n)}\x92.', 'operation NEWOBJ_EX'),
    (b'(ca\nb\no.', 'operation OBJ'),
    (b'(ia\nb\n.', 'operation INST'),
    (b'\x82\x01.', 'operation EXT1'),
    (b'Px\n.', 'operation PERSID'),
    (b'K\x01)R.', 'calls what is no name'),
    (b'ca\nb\n}R.', 'calls what is no name'),
    (b'ccollections\nOrderedDict\nK\x01\x85R.', 'damaged'),
    (b'j\xff\xff\xff\xff.', 'no memo 4294967295'),
    (b'K\x01r\xff\xff\xff\xff0.', 'operation POP|takes more'),
    (b'X\xff\xff\xff\xffab.', 'a text of 4,294,967,295 bytes'),
    (b'\x8d' + b'\xff' * 8 + b'ab.', 'pickle'),
    (b'\x8e' + b'\xff' * 7 + b'\x00ab.', 'a text of 72,0'),
    (b'}(K\x01u.', 'a key without a value'),
    (b'})K\x01s.', 'a key that is a tuple'),
    (b'K\x01K\x02e.', 'no mark'),
    (b'(.', 'takes more than it holds'),
    (b'.', 'takes more than it holds'),
    (b'', 'damaged|cut off'),
    (b'K', 'damaged|cut off'),
    (b'\x80\x02}', 'damaged|cut off'),
    (b'0' * 10, 'operation POP'),
    (b'N' * (restricted_pickle.MOST_BYTES + 9), 'more than 4,194,304 bytes'),
  ],
)
def test_every_other_operation_is_refused(data, told):
  with pytest.raises(Refused, match=told):
    load(data)
  assert not os.path.exists('evil')


def test_values_inside_each_other_a_million_times_are_no_key():
  """Their hash would take 2^60 steps."""
  data = b')' + b'q\x00h\x00\x86' * 60
  assert isinstance(load(data + b'.'), tuple)
  with pytest.raises(Refused, match='a key that is a tuple'):
    load(b'}' + data + b'K\x01s.')


def test_a_file_changes_nothing_in_the_process(tmp_path):
  """BUILD on what stands for a function, then a file that is sound."""
  path = tmp_path / 'w.pth'
  rebuild = b'ctorch._utils\n_rebuild_tensor_v2\n'
  poison = b'\x80\x02' + rebuild + b'N}X\x05\x00\x00\x00arrayK\x01s\x86b.'
  heads = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {})]
  path.write_bytes(b''.join(heads) + poison)
  with pytest.raises(
    damaged_weights.DamagedWeights, match='stores into what is no'
  ):
    pytorch_file.read(path)
  published_weights.write_pytorch(path, {'a': np.ones(3)}, zipped=False)
  np.testing.assert_array_equal(pytorch_file.read(path)['a'], np.ones(3))


def legacy(path, tensor, numbers=6):
  """Writes a state dict of one tensor: (offset, shape, strides) as opcodes."""
  heads = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {})]
  body = b'\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n('
  body += b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000'
  body += b'X\x03\x00\x00\x00cpuK\x06tQ' + tensor + b'tRs.'
  data = np.int64(numbers).tobytes() + np.arange(6, dtype='<f4').tobytes()
  path.write_bytes(b''.join(heads) + body + pickle.dumps(['0'], 2) + data)


def whole(*numbers):
  """-> opcodes of a tuple of integers of any size."""
  return b'(' + b''.join(pickle.dumps(n, 2)[2:-1] for n in numbers) + b't'


@pytest.mark.parametrize(
  ('tensor', 'told'),
  [
    (b'K\x00' + whole(10**10) + whole(0), '10,000,000,000 numbers.* holds 6'),
    (b'K\x00' + whole(7) + whole(0), '7 numbers, and the file holds 6'),
    (b'K\x04' + whole(3) + whole(1), 'holds 6'),
    (b'K\x00' + whole(2, 3) + whole(3), '2 axes and 1 strides'),
    (b'K\x00' + whole(-2) + whole(1), 'impossible shape'),
    (b'K\x00' + whole(2) + whole(-1), 'impossible shape'),
    (b'K\x00' + whole(2**70) + whole(0), 'impossible shape'),
    (b'K\x00' + whole(2) + whole(2**62), 'holds 6'),
    (b'K\x00' + whole(*[1] * 40) + whole(*[1] * 40), 'without a shape'),
    (b'N' + whole(2) + whole(1), 'impossible shape'),
    (b'K\x00NN', 'without a shape'),
  ],
)
def test_a_tensor_has_no_more_numbers_than_the_file(tmp_path, tensor, told):
  legacy(tmp_path / 'w.pth', tensor)
  with pytest.raises(ValueError, match=told) as caught:
    pytorch_file.read(tmp_path / 'w.pth')
  assert exit_codes.classify(caught.value) is exit_codes.DATA_ERROR


def test_views_of_a_storage_take_no_memory_of_their_own(tmp_path):
  legacy(tmp_path / 'w.pth', b'K\x01' + whole(2, 2) + whole(1, 2))
  found = pytorch_file.read(tmp_path / 'w.pth')['w']
  np.testing.assert_array_equal(found, [[1, 3], [2, 4]])
  assert found.base is not None
  for numbers in (2**40, -1, 7):
    legacy(tmp_path / 'w.pth', b'K\x00' + whole(6) + whole(1), numbers)
    with pytest.raises(ValueError, match='storage 0 is cut off'):
      pytorch_file.read(tmp_path / 'w.pth')


def test_a_pickle_that_is_no_dict_is_refused(tmp_path):
  heads = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {})]
  path = tmp_path / 'w.pth'
  path.write_bytes(b''.join([*heads, pickle.dumps(None), pickle.dumps([])]))
  with pytest.raises(ValueError, match='holds a NoneType and no dict'):
    pytorch_file.read(path)
