"""A stage in one file: whole, hashed, for others too, refused if changed."""

import json
import struct

import jax
import numpy as np
import pytest
from support import tiny_run

from cdm.checkpointing import model_check, packed_stage, stage_files
from cdm.data.files.damaged_file import DamagedFile

CONFIG = '{"name": "tiny"}'
PARAMS = tiny_run.init(jax.random.key(0))
ABSTRACT = jax.eval_shape(tiny_run.init, jax.random.key(0))


@pytest.fixture
def packed(tmp_path):
  """-> path of a stage of step 7 in one file."""
  path = tmp_path / 'tiny.safetensors'
  packed_stage.write(path, PARAMS, config=CONFIG, step=7, notes={'card': 'é'})
  return path


def header(path):
  """-> (size of the header, the header), by the format's own definition."""
  data = path.read_bytes()
  (size,) = struct.unpack_from('<Q', data)
  return size, json.loads(data[8 : 8 + size])


def test_a_stage_comes_back_bit_for_bit(packed):
  params, step = packed_stage.restore(packed, ABSTRACT)
  assert step == 7
  for a, b in zip(
    jax.tree.leaves(params), jax.tree.leaves(PARAMS), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  found = packed_stage.read(packed)
  assert found.config == CONFIG and found.notes == {'card': 'é'}
  assert stage_files.resolve(packed) == stage_files.resolve(packed, 7) == 7
  assert stage_files.read_config(packed, 7) == CONFIG


def test_the_file_is_what_other_programs_expect(packed):
  size, head = header(packed)
  assert set(head) == {
    '__metadata__', 'down/bias', 'down/kernel', 'up/bias', 'up/kernel'
  }  # fmt: skip
  entry = head['down/kernel']
  assert entry['dtype'] == 'F32' and entry['shape'] == [48, 8]
  first, last = entry['data_offsets']
  data = packed.read_bytes()[8 + size :][first:last]
  np.testing.assert_array_equal(
    np.frombuffer(data, '<f4').reshape(48, 8), PARAMS['down']['kernel']
  )


def test_the_file_is_as_readable_as_any_other(packed):
  beside = packed.with_name('beside')
  beside.touch()
  assert packed.stat().st_mode == beside.stat().st_mode


def test_float16_rounds_to_the_nearest(packed):
  packed_stage.write(packed, PARAMS, config=CONFIG, step=7, dtype='float16')
  params, _ = packed_stage.restore(packed, ABSTRACT)
  found, own = params['up']['kernel'], np.asarray(PARAMS['up']['kernel'])
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, own.astype(np.float16))
  assert header(packed)[1]['up/kernel']['dtype'] == 'F16'


@pytest.mark.parametrize(
  'value, told', [(7e4, 'too large for it'), (np.nan, 'is not finite')]
)
def test_what_float16_cannot_hold_is_refused(tmp_path, value, told):
  path = tmp_path / 'a.safetensors'
  params = {'a': np.array([1.0, value], np.float32)}
  with pytest.raises(ValueError, match=f'a cannot be written.*{told}'):
    packed_stage.write(path, params, config='', step=0, dtype='float16')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('at', [-1, -200, 5])
def test_a_changed_byte_is_found(packed, at):
  data = bytearray(packed.read_bytes())
  data[at] ^= 1
  packed.write_bytes(data)
  with pytest.raises(DamagedFile, match='damaged'):
    packed_stage.read(packed)


@pytest.mark.parametrize('kept', [0, 7, 300, -1])
def test_a_cut_file_is_refused(packed, kept):
  packed.write_bytes(packed.read_bytes()[:kept])
  with pytest.raises(DamagedFile, match='tiny.safetensors is damaged'):
    packed_stage.read(packed)


def test_a_file_of_another_program_is_refused_by_its_name(tmp_path):
  from safetensors import numpy

  path = tmp_path / 'other.safetensors'
  numpy.save_file({'a': np.zeros(3)}, path, {'format': 'pt'})
  with pytest.raises(DamagedFile, match=r"format is 'pt', not 'cdm stage 1'"):
    packed_stage.read(path)


def test_another_network_is_refused_by_its_first_difference(packed):
  other = jax.eval_shape(lambda k: tiny_run.init(k, 9), jax.random.key(0))
  with pytest.raises(
    model_check.ModelMismatch, match=r'down/bias is \(8,\) in the file and \(9,'
  ):
    packed_stage.restore(packed, other)


@pytest.mark.parametrize('at', [8, 'best', '@std=0.05'])
def test_a_packed_stage_has_one_set_of_parameters(packed, at):
  with pytest.raises(
    ValueError, match='holds one set of parameters, of step 7'
  ):
    stage_files.resolve(packed, at)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no file .*no.safetensors'):
    stage_files.resolve(tmp_path / 'no.safetensors')
