import numpy as np
import pytest

from cdm.models.pretrained import tensorflow_graph
from cdm.models.pretrained.damaged_weights import DamagedWeights


def varint(number):
  """Returns seven bits a byte, the lowest first."""
  low, rest = number & 0x7F, number >> 7
  return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, value):
  """Returns a field of a protocol buffer: a number, or a message."""
  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  return varint(number << 3 | 2) + varint(len(value)) + value


def graph(shape, values, *, packed=True, more=b''):
  """Returns a graph of one constant whose values stand in `float_val`."""
  values = np.asarray(values, '<f4')
  axes = b''.join(field(2, field(1, n)) for n in shape)
  numbers = (
    field(5, values.tobytes())
    if packed
    else b''.join(varint(5 << 3 | 5) + value.tobytes() for value in values)
  )
  tensor = field(1, 1) + field(2, axes) + numbers
  entry = field(1, b'value') + field(2, field(8, tensor))
  node = field(1, b'w') + field(2, b'Const') + field(5, entry)
  return more + field(1, node)


def read(*given, **options):
  return tensorflow_graph.constants(graph(*given, **options))['w']


@pytest.mark.parametrize('packed', [True, False])
def test_repetitions_of_the_last_value_at_the_end_are_added(packed):
  found = read((2, 3), [1, 2, 7], packed=packed)
  np.testing.assert_array_equal(found, [[1, 2, 7], [7, 7, 7]])
  np.testing.assert_array_equal(read((2,), [1, 2], packed=packed), [1, 2])
  np.testing.assert_array_equal(read((2,), [3], packed=packed), [3, 3])
  np.testing.assert_array_equal(read((2,), []), [0, 0])
  assert read((), [4]) == 4


def test_a_thousand_are_added_for_each_that_is_stored_and_no_more():
  assert read((2000,), [1, 2])[-1] == 2
  for shape, values in (((2001,), [1, 2]), ((2,), [1, 2, 3])):
    with pytest.raises(DamagedWeights, match=f'has {len(values)} numbers'):
      read(shape, values)


def test_a_constant_has_32_axes_and_below_two_to_the_31_along_one():
  assert read((1,) * 32, [5]).ndim == 32
  assert read((2**31 - 1,), [5]).shape == (2**31 - 1,)
  for shape in ((1,) * 33, (2**31,)):
    with pytest.raises(DamagedWeights, match='an impossible shape'):
      read(shape, [5])


def test_fields_that_nobody_asked_for_are_passed_over():
  more = field(9, 2**63) + varint(9 << 3 | 1) + bytes(8)
  more += varint(9 << 3 | 5) + bytes(4) + field(200, b'x' * 300)
  np.testing.assert_array_equal(read((2,), [1, 2], more=more), [1, 2])


@pytest.mark.parametrize(
  ('more', 'told'),
  [
    (varint(9 << 3 | 3), 'wire type 3 at byte 1'),
    (varint(9 << 3 | 1) + bytes(7), '8 bytes expected at 1, 7 left'),
    (varint(9 << 3 | 5) + bytes(3), '4 bytes expected at 1, 3 left'),
    (varint(9 << 3 | 2) + b'\x05abcd', '5 bytes expected at 2, 4 left'),
    (varint(9 << 3), 'it ends in a number, at byte 1'),
    (varint(9 << 3) + b'\x80' * 9 + b'\x80\0', 'of more than 64 bits before'),
  ],
)
def test_a_field_that_is_cut_off_is_refused_by_its_place(more, told):
  with pytest.raises(DamagedWeights, match=told):
    tensorflow_graph.constants(more)
