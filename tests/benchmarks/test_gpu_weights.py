"""Weights come home in small parts, and a run begins from them again."""

import hashlib
import json

import jax
import numpy as np
import pytest

from benchmarks.gpu import result_rows, weight_parts
from cdm.checkpointing import reader
from cdm.config import loader
from cdm.data import class_names
from cdm.training import imported_weights, program

SMALL = [
  ('model.features', '8'),
  ('model.multipliers', '(1,)'),
  ('model.attention_resolutions', '()'),
  ('model.norm_groups', '4'),
]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A work directory whose EMA parameters are random; -> (it, parameters)."""
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  workdir.mkdir()
  c = loader.load('configs/smoke.py', SMALL)
  shapes = program.assemble(c).state.params
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes
  )
  imported_weights.write_workdir(c, workdir, params)
  class_names.write(workdir, ['a', 'b', 'c', 'd'])
  return workdir, params


def flat(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


@pytest.fixture
def parts(trained, tmp_path, monkeypatch):
  """The weights in parts of 4,000 bytes, as the real ones are of 15 MB."""
  monkeypatch.setattr(weight_parts, 'PART_BYTES', 4000)
  weight_parts.write(trained[0], tmp_path / 'parts', earlier_steps=100)
  return tmp_path / 'parts'


def test_the_parts_hold_the_ema_rounded_once(trained, parts):
  index, arrays = weight_parts.read(parts)
  expected = flat(trained[1])
  assert arrays.keys() == expected.keys()
  for name, value in expected.items():
    rounded = value.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(arrays[name], rounded)
  assert index['total_steps'] == 100 and index['classes'] == [*'abcd']
  assert len(index['parts']) > 3
  for part in index['parts']:
    content = (parts / part['name']).read_bytes()
    assert len(content) == part['bytes'] <= 4000
    assert hashlib.sha256(content).hexdigest() == part['sha256']


def test_a_part_is_small_enough_to_come_home():
  assert weight_parts.PART_BYTES <= 15_000_000


def test_bfloat16_has_the_range_that_float16_lacks(trained, tmp_path):
  workdir, params = trained
  c = loader.load('configs/smoke.py', SMALL)
  large = jax.tree.map(lambda x: x * 1e5, params)
  imported_weights.write_workdir(c, tmp_path / 'large', large)
  with pytest.raises(ValueError, match='that float16 cannot hold'):
    weight_parts.write(tmp_path / 'large', tmp_path / 'out')
  weight_parts.write(tmp_path / 'large', tmp_path / 'out', dtype='bfloat16')
  _, arrays = weight_parts.read(tmp_path / 'out')
  for name, value in flat(large).items():
    np.testing.assert_allclose(arrays[name], value, rtol=2**-8)


@pytest.mark.parametrize('damage', ['bit', 'cut', 'gone', 'index', 'format'])
def test_damage_is_found_and_named(parts, damage):
  part, index = parts / 'weights_001.bin', parts / 'weights.json'
  content = bytearray(part.read_bytes())
  if damage == 'bit':
    content[17] ^= 1
    part.write_bytes(content)
  elif damage == 'cut':
    part.write_bytes(content[:-1])
  elif damage == 'gone':
    part.unlink()
  elif damage == 'index':
    index.write_text('{"format": 1}', encoding='utf-8')
  else:
    stored = json.loads(index.read_text(encoding='utf-8'))
    index.write_text(json.dumps(stored | {'format': 2}), encoding='utf-8')
  name = index if damage in ('index', 'format') else part
  with pytest.raises(ValueError, match=name.name):
    weight_parts.read(parts)


def test_a_run_made_of_parts_holds_the_same_ema(trained, parts, tmp_path):
  workdir = tmp_path / 'again'
  weight_parts.restore(parts, workdir)
  c = loader.from_json(reader.read_config(workdir), workdir)
  assert c.name == 'smoke' and c.model.features == 8
  assert class_names.read(workdir) == [*'abcd']
  params, step = reader.restore_ema(workdir, program.assemble(c).state.params)
  assert step == 0
  for name, value in flat(trained[1]).items():
    rounded = value.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(flat(params)[name], rounded)


def test_a_row_says_where_it_was_measured(tmp_path, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_gpu_autotune_level=4 --other')
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  rows = result_rows.Rows(tmp_path / 'out', 'truth', smoke=True)
  rows.add(check='resize', error=np.float32(0.5), worst=float('nan'))
  rows.add(check='samplers', error=0.25)
  lines = (tmp_path / 'out' / 'rows.jsonl').read_text(encoding='utf-8')
  first, second = map(json.loads, lines.splitlines())
  assert first['error'] == 0.5 and first['worst'] == 'nan'
  assert second['check'] == 'samplers'
  for row in (first, second):
    assert row['job'] == 'truth' and row['smoke'] is True
    assert row['device'] == jax.devices()[0].device_kind
    assert row['jax'] == jax.__version__
    assert row['autotune_level'] == '4'
    assert row['xla_python_client_preallocate'] == 'false'
    assert row['xla_python_client_mem_fraction'] == 'default'
    assert {'driver', 'commit', 'python', 'flax', 'time'} <= row.keys()


def test_a_table_shows_what_rows_have():
  rows = [{'a': 1.23456, 'b': 'x|y'}, {'a': 2}]
  assert result_rows.table(rows, ('a', 'b')) == (
    '| a | b |\n|---|---|\n| 1.235 | x/y |\n| 2 |  |\n'
  )
