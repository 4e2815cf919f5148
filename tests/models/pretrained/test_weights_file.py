"""Files of weights are read by their content, whatever wraps the arrays."""

import collections
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from support import published_weights

from cdm.models.pretrained import safetensors_file, weights_file
from cdm.models.pretrained.damaged_weights import DamagedWeights

STATE = {
  'time_embed.0.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'out.2.bias': np.float32([1.5, -2.0]),
}
KINDS = {'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16'}


def safetensors(state, header=None):
  """-> bytes of a file, by the format's own description."""
  content, entries = b'', collections.OrderedDict(__metadata__={'a': 'b'})
  for name, value in state.items():
    place = [len(content), len(content) + value.nbytes]
    content += value.tobytes()
    entries[name] = {
      'dtype': KINDS[value.dtype.name],
      'shape': list(value.shape),
      'data_offsets': place,
    }
  text = json.dumps(entries if header is None else header).encode()
  return struct.pack('<Q', len(text)) + text + content


def assert_read(path):
  found = weights_file.read(path)
  assert list(found) == list(STATE)
  for name, value in STATE.items():
    np.testing.assert_array_equal(np.float32(found[name]), value)


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_safetensors_are_read_in_every_precision(dtype, tmp_path):
  state = {k: np.asarray(v, jnp.dtype(dtype)) for k, v in STATE.items()}
  path = tmp_path / 'model.bin'  # the content says what it is
  path.write_bytes(safetensors(state))
  assert_read(path)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
  'dtype, part', [('float32', 'ema'), ('float16', None), ('bfloat16', 'model')]
)
def test_both_containers_of_pytorch_are_read(dtype, part, zipped, tmp_path):
  state = {
    f'module.{k}': np.asarray(v, jnp.dtype(dtype)) for k, v in STATE.items()
  }
  path = tmp_path / 'ema_0.9999_1.pt'
  published_weights.write_pytorch(path, state, zipped=zipped, part=part)
  assert_read(path)


@pytest.mark.parametrize(
  'header, message',
  [
    ([], 'no JSON object'),
    ({'a': {'dtype': 'F8', 'shape': [], 'data_offsets': [0, 1]}}, "'F8'"),
    ({'a': {'dtype': 'F32', 'shape': [9], 'data_offsets': [0, 36]}}, 'ends'),
    ({'a': {'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 8]}}, '8 bytes'),
    ({'a': {'dtype': 'F32', 'shape': [-1], 'data_offsets': [0, 8]}}, 'impos'),
    ({'a': {'dtype': 'F32'}}, 'shape'),
    ({'a': 3}, 'cannot be read'),
  ],
)
def test_a_damaged_header_is_one_error(header, message, tmp_path):
  path = tmp_path / 'model.safetensors'
  path.write_bytes(safetensors({'a': np.zeros(8, np.float16)}, header))
  with pytest.raises(DamagedWeights, match=message):
    safetensors_file.read(path)


def test_a_header_longer_than_the_file_is_refused(tmp_path):
  path = tmp_path / 'model.safetensors'
  path.write_bytes(struct.pack('<Q', 1 << 40) + b'{')
  with pytest.raises(DamagedWeights, match='its header has'):
    safetensors_file.read(path)


def test_a_file_without_arrays_says_so(tmp_path):
  path = tmp_path / 'a.pt'
  published_weights.write_pytorch(path, {}, zipped=True)
  with pytest.raises(DamagedWeights, match='holds no arrays under names'):
    weights_file.read(path)
