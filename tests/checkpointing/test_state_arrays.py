"""Real processes save and restore a state of which all hold copies."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import conftest
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from support import tiny_run

from cdm.checkpointing import (
  checksums,
  state_arrays,
  verification,
)
from cdm.training import state as train_state

COUNT, DEVICES = 2, 2  # processes, and devices of each

RANK = """
import errno, json, os, sys
import jax, jax.numpy as jnp, numpy as np
workdir, rank, count, port, data = sys.argv[1:]
rank, count = int(rank), int(count)
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize(f'127.0.0.1:{port}', count, rank)
from jax.sharding import NamedSharding, PartitionSpec as P
from cdm.checkpointing import (
  background_save, checksums, model_check, reader, replica_shares,
  state_arrays, writer)
from cdm.distributed import device_mesh
replica_shares.LEAST_BYTES = 1
mesh = device_mesh.make_mesh(data=int(data), fsdp=-1)
rng = np.random.default_rng(0)

def bits(*shape, dtype=np.uint32):  # of any float: NaN, -0 and all others
  return rng.integers(0, 2**16, shape, dtype=np.uint16).astype(dtype)

small = (bits(8, 64) * np.uint32(65_521)).view(np.float32)
small[0, :4] = [-0.0, 0.0, np.nan, -np.inf]
values = {
  'key': (jax.random.key(3), P()),
  'step': (np.int32(7), P()),
  'mean': (bits(33, dtype=np.uint16).view(jnp.bfloat16), P()),
  'small': (small, P()),
  'ema_params': {f'w{i}': (rng.normal(size=(256, 256)).astype('f'),
                   P(None, 'fsdp') if i % 2 else P()) for i in range(8)},
  'list': [(np.arange(3, dtype='f'), P()), (np.ones((8, 6)), P('fsdp'))],
}
is_pair = lambda x: isinstance(x, tuple)
def place(pair):
  value, spec = pair
  at = NamedSharding(mesh, spec)
  if isinstance(value, jax.Array):
    return jax.jit(lambda: jax.random.key(3), out_shardings=at)()
  return jax.make_array_from_callback(value.shape, at, lambda i: value[i])
state = jax.tree.map(place, values, is_leaf=is_pair)
abstract = jax.tree.map(
  lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)

def io():
  with open('/proc/self/io', encoding='ascii') as file:
    return {k: int(v) for k, v in (line.split(': ') for line in file)}

told = {}
saver = writer.Checkpointer(workdir, config='{}', retry_seconds=60)
def save(step, **data):
  saver.save(step, state, data_state=data or {'next': step})
  saver.wait()
  return saver.steps()
told['first'] = save(1)
before = io()
told['second'] = save(2)
told['written'] = io()['wchar'] - before['wchar']

def failing(module, name, here, code=errno.EIO):
  # The next call fails in one process.
  real = getattr(module, name)
  def once(*args, **kwargs):
    setattr(module, name, real)
    if here:
      raise OSError(code, os.strerror(code))
    return real(*args, **kwargs)
  setattr(module, name, once)

failing(checksums, 'sums', rank == 1)
told['one could not write'] = save(3)
told['due'] = [saver.retry_is_due() for _ in range(2)]
told['made again'] = save(4)
told['not due'] = [saver.retry_is_due() for _ in range(2)]
failing(state_arrays, 'merge', True)
told['not joined'] = save(5)
told['left'] = sorted(os.listdir(os.path.join(workdir, 'checkpoints')))
failing(checksums, 'sums', rank == 1, errno.ENOSPC)
saver._saves._retry_seconds = 0
try:
  save(6)
except OSError as error:
  told['error'] = str(error)

saver = writer.Checkpointer(workdir)
before = io()
found = saver.restore_latest(abstract)
told['read'] = io()['rchar'] - before['rchar']
told['step'], told['position'] = found.step, found.data_state
def raw(x):
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.jit(jax.random.key_data)(x)
  return [np.asarray(s.data).tobytes() for s in x.addressable_shards]
told['same'] = jax.tree.map(raw, found.state) == jax.tree.map(raw, state)
told['placed'] = jax.tree.all(jax.tree.map(
  lambda a, b: a.sharding == b.sharding, found.state, state))
ema, _ = reader.restore_ema(workdir, abstract['ema_params'])
told['ema'] = jax.tree.map(raw, ema) == jax.tree.map(raw, state['ema_params'])
struct = abstract['ema_params']['w1']
some = reader.restore_arrays(workdir, {'ema_params/w1': struct}, step=4)
told['some'] = raw(some['ema_params/w1']) == raw(state['ema_params']['w1'])

told['differs'] = ''
wrong = dict(abstract, small=jax.ShapeDtypeStruct(
  (4,), np.float32, sharding=abstract['small'].sharding))
try:
  saver.restore_latest(wrong)
except model_check.ModelMismatch as error:
  told['differs'] = str(error)
real = state_arrays._read_share
def unreadable(*args, **kwargs):
  if rank == 1:
    raise OSError(errno.EIO, 'Input/output error')
  return real(*args, **kwargs)
state_arrays._read_share = unreadable
try:
  state_arrays.read(reader.folder(workdir) / '4' / 'state', abstract)
except Exception as error:
  told['unreadable'] = f'{type(error).__name__}: {error}'
print(json.dumps(told))
"""


def run(workdir, count=COUNT, devices=DEVICES, data=COUNT):
  """Runs the program in so many processes; -> what each of them told.

  Args:
    workdir: where they save.
    count: number of processes.
    devices: of each process.
    data: size of the mesh's first axis; the rest is split by `fsdp`.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = str(free.getsockname()[1])
  environment = os.environ | {
    'PYTHONPATH': os.pathsep.join(sys.path),
    'JAX_NUM_CPU_DEVICES': str(devices),
    'XLA_FLAGS': ' '.join(conftest.COMPILER_FLAGS),
    'JAX_PLATFORMS': 'cpu',
  }
  running = [
    subprocess.Popen(
      [
        sys.executable,
        '-c',
        RANK,
        workdir,
        *map(str, (rank, count, port, data)),
      ],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      encoding='utf-8',
    )
    for rank in range(count)
  ]
  try:
    outputs = [process.communicate(timeout=300) for process in running]
  finally:
    for process in running:
      process.kill()
  for process, (_, error) in zip(running, outputs, strict=True):
    assert process.returncode == 0, error[-3000:]
  return [json.loads(text.splitlines()[-1]) for text, _ in outputs]


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp('run')


@pytest.fixture(scope='module')
def told(workdir):
  return run(workdir)


def test_a_save_that_failed_in_one_process_failed_in_all(told):
  for mine in told:
    assert mine['second'] == [1, 2]
    assert mine['one could not write'] == [1, 2]
    # What process 0 says is heard at the next call.
    assert mine['due'] == [False, True]
    assert mine['not due'] == [False, False]
    assert mine['made again'] == [1, 2, 4]
    assert mine['not joined'] == [1, 2, 4]
    # What was half-written is gone.
    assert mine['left'] == ['1', '2', '4']


def test_all_name_the_process_that_failed_and_what_is_lost(told):
  for mine in told:
    assert 'of step 6' in mine['error']
    assert 'process 1: No space left on device. ' in mine['error']
    # With step 1 in its place, step 4 would be the third of three to keep.
    assert 'steps [2, 4] are whole; 2 steps (' in mine['error']


def test_every_bit_comes_back_in_its_place(told):
  for mine in told:
    assert (mine['step'], mine['position']) == (4, {'next': 4})
    assert mine['same'] and mine['placed'] and mine['ema'] and mine['some']


def test_each_process_writes_and_reads_its_share_alone(told, workdir):
  """It reads them twice: to compare them with their checksums, and to use."""
  folder = workdir / 'checkpoints' / '4' / 'state'
  sizes = []
  for rank in range(COUNT):
    files = (folder / f'ocdbt.process_{rank}').rglob('*')
    sizes.append(sum(f.stat().st_size for f in files if f.is_file()))
  assert max(sizes) < 0.6 * sum(sizes)
  for mine in told:
    assert mine['written'] < 0.65 * sum(sizes)
    assert mine['read'] < 2 * 0.65 * sum(sizes)


def test_the_checksums_name_the_files_of_all(told, workdir):
  folder = workdir / 'checkpoints' / '4'
  listed = json.loads((folder / checksums.FILE).read_text(encoding='utf-8'))
  there = {
    path.relative_to(folder).as_posix()
    for path in pathlib.Path(folder).rglob('*')
    if path.is_file()
  }
  assert there - set(listed) == {checksums.FILE, verification.METADATA}
  assert set(listed) <= there
  assert checksums.check(folder)


def test_an_error_of_one_process_ends_the_restoring_of_all(told):
  for mine in told:
    assert 'First difference: small is [8, 64]' in mine['differs']
  first, second = (mine['unreadable'] for mine in told)
  assert first.startswith('ReadElsewhereFailed: process 1: OSError')
  assert second.startswith('OSError: [Errno 5]')


@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 4, 1)])
def test_what_orbax_writes_by_its_own_rules_is_read(tmp_path, shape):
  """As earlier versions did: in pieces, a piece for each device."""
  state = tiny_run.init_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(5),
    mesh=tiny_run.mesh(*shape),
    rules=tiny_run.RULES,
  )
  with ocp.StandardCheckpointer() as saver:
    saver.save(tmp_path / 'state', state)
  target = train_state.abstract_of(state)
  found = state_arrays.read(epath.Path(tmp_path / 'state'), target)
  tiny_run.assert_same(found, state)
  assert train_state.shardings_of(found) == train_state.shardings_of(state)


def test_orbax_reads_by_its_own_rules_what_is_written(tmp_path):
  values = {'w': np.arange(24.0).reshape(4, 6), 'step': np.int32(3)}
  at = jax.sharding.NamedSharding(tiny_run.mesh(8), jax.P())
  state = jax.device_put(values, at)
  path = epath.Path(tmp_path / 'state')
  for future in state_arrays.begin_to_write(path, state):
    future.result(60)
  state_arrays.merge(path)
  with ocp.StandardCheckpointer() as reading:
    found = reading.restore(path, state)
  np.testing.assert_array_equal(found['w'], values['w'])
  assert found['step'] == 3
