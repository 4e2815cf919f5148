import numpy as np
import pytest
from support import tfrecord_sets

from cdm.data.forms import tf_example
from cdm.data.forms.tf_example import BYTES, FLOATS, INTS, Malformed, Span


def parse(data):
  take = tf_example.taker(data)
  return take, tf_example.features(take, Span(0, len(data)))


def test_features_are_those_that_protobuf_wrote():
  numbers = [0, 1, 127, 128, 2**40, 2**63 - 1, -1, -(2**63)]
  data = tfrecord_sets.example(shape=numbers, data=b'abc', x=0.5, ü=b'\xff')
  take, found = parse(data)
  kinds = {name: feature.kind for name, feature in found.items()}
  assert kinds == {'shape': INTS, 'data': BYTES, 'x': FLOATS, 'ü': BYTES}
  assert tf_example.ints(take, found['shape']) == numbers
  (span,) = tf_example.byte_spans(take, found['data'])
  assert data[span.begin : span.end] == b'abc'
  assert tf_example.text(take, found['data']) == 'abc'
  assert tf_example.text(take, found['ü']) == '\udcff'
  assert tf_example.text(take, found['shape']) is None
  assert tf_example.integer(take, found['shape']) is None
  assert tf_example.ints(take, found['data']) == []
  assert tf_example.byte_spans(take, found['x']) == []
  some = tf_example.features(take, Span(0, len(data)), {'x', 'other'})
  assert some == {'x': found['x']}


def test_integers_may_stand_one_by_one():
  """Protobuf's readers must take both forms of a list, packed or not."""
  values = b'\x08\x03\x08\x80\x01'  # field 1, varint: 3 and 128
  feature = b'\x1a' + bytes([len(values)]) + values
  entry = b'\x0a\x01a\x12' + bytes([len(feature)]) + feature
  features = b'\x0a' + bytes([len(entry)]) + entry
  take, found = parse(b'\x0a' + bytes([len(features)]) + features)
  assert tf_example.ints(take, found['a']) == [3, 128]


def test_large_values_are_not_read():
  """The label of an image of 1 MB is found in a few bytes."""
  data = tfrecord_sets.example(
    image__encoded=bytes(1 << 20), image__class__label=[7], zz=b'z'
  )
  taken = []

  def take(begin, length):
    taken.append(length)
    return data[begin : begin + length]

  found = tf_example.features(take, Span(0, len(data)))
  assert tf_example.integer(take, found['image/class/label']) == 7
  assert sum(taken) < 1000


def test_damaged_bytes_are_refused_and_nothing_else_is_raised():
  data = tfrecord_sets.example(shape=[3, 4, 4], data=bytes(48))
  rng, refused = np.random.default_rng(0), 0
  for _ in range(2000):
    damaged = bytearray(data)
    for _ in range(3):
      damaged[rng.integers(len(data))] = rng.integers(256)
    try:
      take, found = parse(bytes(damaged[: rng.integers(1, len(data) + 1)]))
      for feature in found.values():
        tf_example.ints(take, feature)
        tf_example.byte_spans(take, feature)
        tf_example.text(take, feature)
    except Malformed:
      refused += 1
  assert refused > 1000


@pytest.mark.parametrize(
  'data, reason',
  [
    (b'\x0a\xff', 'a number has no end'),
    (b'\xff' * 11, 'a number has no end'),
    (b'\x0a\x05abc', 'a field ends behind what it is a part of'),
    (b'\x0b', 'a field has the type 3'),
    (b'\x0a\x04\x0a\x02\x08\x01', 'neither name nor value'),
  ],
)
def test_the_reason_is_said(data, reason):
  with pytest.raises(Malformed, match=reason):
    parse(data)
