"""Weights are read from the files in which they are published."""

import os
import pickle
import tarfile

import jax
import numpy as np
import pytest
from support import published_weights

from cdm.models.pretrained import (
  damaged_weights,
  inception,
  pytorch_file,
  tensorflow_graph,
)

STATE = {
  'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
  'turned': np.arange(6.0).reshape(2, 3).T,
  'a.number': np.array(7),
  'empty': np.zeros((0, 3), np.float32),
}


@pytest.fixture(scope='module')
def state():
  """-> {PyTorch's name: small random array} of the whole Inception-v3."""
  rng = np.random.default_rng(0)
  names = ('weight', 'bias', 'running_mean', 'running_var')
  made = {'AuxLogits.fc.weight': np.zeros((2, 2), np.float32)}
  shapes = inception._shapes()
  for module in inception.tensorflow_names():
    h, w, i, o = shapes[*module.split('.'), 'conv', 'kernel']
    made[f'{module}.conv.weight'] = rng.normal(size=(o, i, h, w))
    for name in names:
      made[f'{module}.bn.{name}'] = rng.uniform(0.5, 2.0, o)
    made[f'{module}.bn.num_batches_tracked'] = np.array(3)
  made['fc.weight'] = rng.normal(size=(1008, 2048))
  made['fc.bias'] = rng.normal(size=1008)
  return {
    name: value if value.dtype == np.int64 else value.astype(np.float32)
    for name, value in made.items()
  }


def of_tensorflow(state):
  """-> the same weights by the frozen graph's names and layouts."""
  made = {}
  parts = dict(
    weight='gamma', bias='beta', running_mean='moving_mean',
    running_var='moving_variance',
  )  # fmt: skip
  for ours, theirs in inception.tensorflow_names().items():
    kernel = state[f'{ours}.conv.weight'].transpose(2, 3, 1, 0)
    made[f'{theirs}/conv2d_params'] = np.ascontiguousarray(kernel)
    for part, name in parts.items():
      made[f'{theirs}/batchnorm/{name}'] = state[f'{ours}.bn.{part}']
  made['softmax/weights'] = np.ascontiguousarray(state['fc.weight'].T)
  made['softmax/biases'] = state['fc.bias']
  return made


@pytest.mark.parametrize('zipped', [True, False])
def test_arrays_of_a_state_dict_come_back(tmp_path, zipped):
  path = tmp_path / 'w.pth'
  contiguous = {k: np.ascontiguousarray(v) for k, v in STATE.items()}
  published_weights.write_pytorch(path, contiguous, zipped=zipped)
  found = pytorch_file.read(path)
  assert found.keys() == STATE.keys()
  for name, value in STATE.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert found[name].dtype == value.dtype


@pytest.mark.parametrize('zipped', [True, False])
def test_a_file_that_is_cut_off_is_refused(tmp_path, zipped):
  path = tmp_path / 'w.pth'
  published_weights.write_pytorch(path, {'a': np.ones(1000)}, zipped=zipped)
  os.truncate(path, path.stat().st_size - 2000)
  with pytest.raises(ValueError, match='w.pth cannot be read as a PyTorch'):
    pytorch_file.read(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
  path, mark = tmp_path / 'w.pth', tmp_path / 'mark'

  class Evil:
    def __reduce__(self):
      return os.mkdir, (str(mark),)

  path.write_bytes(pickle.dumps(Evil(), protocol=2))
  with pytest.raises(ValueError, match=r'refers to (posix|nt)\.mkdir'):
    pytorch_file.read(path)
  assert not mark.exists()


def test_constants_of_a_graph_come_back():
  given = {
    'a/b': np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    'same': np.full((2, 2), 1.5, np.float32),
    'none': np.zeros(0, np.float32),
    'index': np.arange(3, dtype=np.int32),
  }
  found = tensorflow_graph.constants(
    published_weights.frozen_graph(given, single=('same',))
  )
  del given['index']
  assert found.keys() == given.keys()
  for name, value in given.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize('keep', [0, 10, -3])
def test_a_graph_that_is_cut_off_is_refused(keep):
  data = published_weights.frozen_graph({'a': np.ones(100, np.float32)})
  with pytest.raises(ValueError, match='The graph (cannot be read|holds no)'):
    tensorflow_graph.constants(data[:keep])


def field(number, value):
  """-> bytes of a field of a protocol buffer: a message, or a small number."""
  if isinstance(value, int):
    return bytes([number << 3, value])
  return bytes([number << 3 | 2, len(value)]) + value


def constant(entry):
  """-> bytes of a graph of one constant with this attribute."""
  node = field(1, b'layer') + field(2, b'Const') + field(5, entry)
  return field(1, node)


HUGE = field(2, b'\x08' + b'\xff' * 4 + b'\x07')  # 2^31 - 1 along an axis


@pytest.mark.parametrize(
  ('data', 'told'),
  [
    (constant(field(1, b'other')), "'layer' has no value"),
    (constant(field(1, b'value')), "'layer' has no tensor"),
    (constant(field(1, b'value') + field(2, 3)), 'a number where a message'),
    (
      constant(
        field(1, b'value')
        + field(2, field(8, field(1, 1) + field(2, HUGE) + field(4, b'1234')))
      ),
      "'layer' has 1 numbers, and its shape .2147483647. has 2,147,483,647",
    ),
    (field(1, 5), 'a number where a message'),
    (b'\xff' * 1_000_000, 'a number of more than 64 bits before byte 10'),
    (b'\x08\x01' * (1 << 21), 'more than 1,048,576 fields'),
  ],
)
def test_a_damaged_graph_is_refused_in_linear_time(data, told):
  with pytest.raises(damaged_weights.DamagedWeights, match=told):
    tensorflow_graph.constants(data)


def test_what_is_not_written_of_a_constant_takes_no_memory():
  """One value repeated 2^31 times, as TensorFlow leaves repetitions out."""
  tensor = field(1, 1) + field(2, HUGE) + field(5, np.float32(0.5).tobytes())
  data = constant(field(1, b'value') + field(2, field(8, tensor)))
  array = tensorflow_graph.constants(data)['layer']
  assert array.shape == (2**31 - 1,) and array.strides == (0,)
  assert array[-1] == 0.5


def test_a_packed_graph_unpacks_to_no_more_than_the_published(tmp_path):
  path = tmp_path / 'inception.tgz'
  with tarfile.open(path, 'w:gz', compresslevel=1) as archive:
    member = tarfile.TarInfo('first')
    member.size = inception.MOST_UNPACKED + 512
    archive.addfile(member, open('/dev/zero', 'rb'))
  assert path.stat().st_size < 1 << 20
  with pytest.raises(damaged_weights.DamagedWeights, match='unpacks to more'):
    inception.read(path)


def test_arrays_of_other_shapes_are_refused_before_they_are_multiplied(state):
  """A row and a column of 10^6 would make 10^12 numbers."""
  many = {'conv.weight': np.ones((1, 10**6, 1, 1), np.float32)}
  many |= {f'bn.{n}': np.ones(10**6, np.float32) for n in ('weight', 'bias')}
  module = 'Conv2d_1a_3x3'
  wrong = state | {f'{module}.{name}': value for name, value in many.items()}
  with pytest.raises(ValueError, match=r'kernel is \(1, 1, 1000000, 1\) in'):
    inception.from_pytorch(wrong)


def test_every_published_form_of_inception_holds_the_same(tmp_path, state):
  expected = inception.from_pytorch(state)
  published_weights.write_pytorch(tmp_path / 'w.pth', state, zipped=False)
  (tmp_path / inception.GRAPH).write_bytes(
    published_weights.frozen_graph(of_tensorflow(state))
  )
  with tarfile.open(tmp_path / 'inception.tgz', 'w:gz', compresslevel=0) as tar:
    tar.add(tmp_path / inception.GRAPH, inception.GRAPH)
  for name in ('w.pth', inception.GRAPH, 'inception.tgz'):
    found = inception.read(tmp_path / name)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_normalisation_is_folded_into_the_convolution(state):
  params = inception.from_pytorch(state)
  given = {
    name: state[f'Mixed_6c.branch7x7_2.{name}'].astype(np.float64)
    for name in ('conv.weight', 'bn.weight', 'bn.bias', 'bn.running_mean',
                 'bn.running_var')
  }  # fmt: skip
  scale = given['bn.weight'] / np.sqrt(given['bn.running_var'] + 1e-3)
  conv = params['Mixed_6c']['branch7x7_2']['conv']
  kernel = given['conv.weight'].transpose(2, 3, 1, 0) * scale
  np.testing.assert_allclose(conv['kernel'], kernel, rtol=1e-6)
  bias = given['bn.bias'] - given['bn.running_mean'] * scale
  np.testing.assert_allclose(conv['bias'], bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ('change', 'complaint'),
  [
    ({'fc.bias': None}, 'fc.bias is missing: these are not the weights of FID'),
    ({'more.weight': np.ones(1)}, '1 parameters .* first more.weight'),
    ({'fc.bias': np.ones(1000)}, r'fc_bias is \(1000,\) in the file; .*1008'),
  ],
)
def test_weights_of_another_network_are_refused(state, change, complaint):
  state = {k: v for k, v in (state | change).items() if v is not None}
  with pytest.raises(ValueError, match=complaint):
    inception.from_pytorch(state)


def test_an_archive_without_the_graph_is_refused(tmp_path):
  path = tmp_path / 'inception.tgz'
  with tarfile.open(path, 'w:gz'):
    pass
  with pytest.raises(ValueError, match='holds no classify_image_graph_def.pb'):
    inception.read(path)
  path.write_bytes(b'<html>')
  with pytest.raises(ValueError, match='cannot be unpacked .*fetch it again'):
    inception.read(path)
