"""Two real processes train, save, restore, sample and score as one does.

They find each other over jax.distributed and talk through gloo, with one CPU
device each. First the state is split between them, then it is restored to a
copy in each, so a checkpoint crosses layouts on the way.
"""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import conftest
import numpy as np
import pytest
from PIL import Image
from support import smoke_runs
from support.smoke_runs import record, state

from cdm.checkpointing import reader
from cdm.data import array_record
from cdm.distributed import exit_codes, folder_lock, initialize

# As in test_mesh: sums are taken in another order.
RTOL = 2e-3
SAMPLES = 5

RANK = """
import json, os, signal, sys
from cdm.cli import main as cli; from cdm.training import label_check
exec(os.environ.get('BEFORE', ''))
for words in json.loads(sys.argv[1]):
  code = cli.main(words)
  if code:
    sys.exit(code)
"""


# The second reads two batches more than the step has used.
AT_STEP_6 = """
read = label_check.LabelCheckedBatches.__next__
count = iter(range(100))
def fail(batches):
  if next(count) == 8:
    {failure}
  return read(batches)
label_check.LabelCheckedBatches.__next__ = fail
"""


# The first save fails in this process.
FAIL_ONCE = """
from cdm.checkpointing import checksums
real = checksums.sums
def once(*args, **kwargs):
  checksums.sums = real
  raise OSError(5, 'Input/output error')
checksums.sums = once
"""


# Says how many programs were found in the cache, and how many were compiled;
# in the second process too, whose prints go nowhere.
CACHED = """
import atexit, collections, jax
seen = collections.Counter()
jax.monitoring.register_event_listener(
  lambda event, **_: seen.update([event.rpartition('/')[2]])
)
def tell():
  found, asked = seen['cache_hits'], seen['compile_requests_use_cache']
  os.write(1, f'found {found} made {asked - found}\\n'.encode())
atexit.register(tell)
"""


def begin(*commands, before='', both=''):
  """Starts commands in two processes. Returns both, as subprocess.Popen.

  Args:
    *commands: lists of words of `cdm`, one after the other.
    before: code that the second runs first.
    both: code that each runs before that.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join(sys.path),
    'JAX_NUM_CPU_DEVICES': '1',
    'XLA_FLAGS': ' '.join(conftest.COMPILER_FLAGS),
    **smoke_runs.programs(),
    'CDM_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
    'CDM_NUM_PROCESSES': '2',
  }
  words = json.dumps([[str(word) for word in c] for c in commands])
  return [
    subprocess.Popen(
      [sys.executable, '-c', RANK, words],
      env=environment
      | {
        'CDM_PROCESS_ID': str(rank),
        'BEFORE': f'{both}\n{before if rank else ""}',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      encoding='utf-8',
    )
    for rank in range(2)
  ]


def end(running, *codes, timeout=300):
  """Waits, seconds, for processes to end with codes. Returns their outputs."""
  try:
    outputs = [process.communicate(timeout=timeout)[0] for process in running]
  finally:
    for process in running:
      process.kill()
  for process, output, code in zip(running, outputs, codes, strict=True):
    assert process.returncode == code, output[-3000:]
  return outputs


def together(*commands, both=''):
  """Runs commands in two processes. Returns the output of each."""
  return end(begin(*commands, both=both), 0, 0)


def training(workdir, **overrides):
  """-> the words that train the smoke config there, as `house.train` does."""
  overrides = {'eval__every_steps': 4} | overrides
  values = smoke_runs.SMALL | {
    k.replace('__', '.'): v for k, v in overrides.items()
  }
  config = smoke_runs.CONFIGS / 'smoke.py'
  return [
    *('train', f'--config={config}', f'--workdir={workdir}'),
    *(f'--config.{key}={value}' for key, value in values.items()),
  ]


def sampling(workdir, out):
  config = smoke_runs.CONFIGS / 'smoke.py'
  return [
    *('sample', f'--config={config}', f'--workdir={workdir}'),
    *(f'--out={out}', f'--num={SAMPLES}', '--batch_size=3'),
  ]


def scoring(samples, reference, out):
  return [
    *('evaluate', f'--samples={samples}', f'--reference={reference}'),
    f'--out={out}',
  ]


def enlarging(folder, out):
  return [
    *('upscale', f'--workdir={smoke_runs.trained() / "sr"}', folder),
    *(f'--out={out}', '--label=1', '--steps=2', '--compare'),
  ]


def images(folder):
  return np.stack(
    [
      np.asarray(Image.open(folder / f'{n:06d}.png'), int)
      for n in range(SAMPLES)
    ]
  )


@pytest.fixture(scope='module')
def one():
  return smoke_runs.trained() / 'base'


@pytest.fixture(scope='module')
def two(one, tmp_path_factory):
  """What two processes did; images 1 and 3 were missing before they drew."""
  folder = tmp_path_factory.mktemp('two')
  workdir, alone, drawn = folder / 'run', folder / 'alone', folder / 'drawn'
  half = {'mesh__data': 1, 'mesh__fsdp': 2, 'train__profile_steps': '2:2'}
  half = training(workdir, train__num_steps=2, **half)
  trained = together(half, training(workdir))
  assert smoke_runs.cdm(*sampling(workdir, alone)) == 0
  shutil.copytree(alone, drawn)
  for n in (1, 3):
    (drawn / 'smoke' / f'{n:06d}.png').unlink()
  others = folder / 'others.npz'
  np.savez(others, arr_0=images(alone / 'smoke')[::-1].astype(np.uint8))
  score = scoring(alone / 'smoke', others, folder / 'one.json')
  assert smoke_runs.cdm(*score) == 0
  pictures = folder / 'pictures'
  pictures.mkdir()
  rng = np.random.default_rng(0)
  for n, shape in enumerate([(9, 21, 3), (9, 21, 3), (30, 8, 3)]):
    values = rng.integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(values).save(pictures / f'{n}.png')
  assert smoke_runs.cdm(*enlarging(pictures, folder / 'large_one')) == 0
  drew = together(
    enlarging(pictures, folder / 'large_two'),
    sampling(workdir, drawn),
    scoring(alone / 'smoke', others, folder / 'two.json'),
    [*sampling(workdir, folder / 'shards'), '--format=array_records'],
    both='from cdm.sampling import sample_storage as s; s.FEWEST = s.MOST = 2',
  )
  return folder, trained, drew


def test_they_train_save_restore_and_go_on_as_one(one, two):
  folder, trained, _ = two
  # The half that ended at step 2 closed with lines of its own.
  lines = [row for row in record(folder / 'run') if row['step'] != 2]
  for mine, expected in zip(lines, record(one), strict=True):
    assert mine == pytest.approx(expected, rel=1e-4)
  assert 'held_out/ema_loss' in lines[-1]
  assert reader.resolve(folder / 'run', 'best') == 4
  expected, mine = state(one, 4), state(folder / 'run', 4)
  assert mine.keys() == expected.keys()
  for name, value in expected.items():
    if name.startswith(('params/', 'ema_params/')):
      error = np.abs(mine[name] - value).max() / np.abs(value).max()
      assert error < RTOL, name


def test_each_traces_its_own_devices_in_a_folder_of_its_own(two):
  """On one machine their traces have the same names."""
  folder, trained, _ = two
  profile = folder / 'run' / 'profile'
  assert sorted(path.name for path in profile.iterdir()) == [
    'process_0',
    'process_1',
  ]
  for home in profile.iterdir():
    (trace,) = home.glob('plugins/profile/*/*.xplane.pb')
    assert trace.stat().st_size > 1000
    (file,) = home.rglob('*.trace.json.gz')
    events = json.loads(gzip.decompress(file.read_bytes()))['traceEvents']
    steps = {e['args']['step_num'] for e in events if e.get('name') == 'train'}
    assert steps == {'2'}
  line = f'a profile of steps 2-2 is in {profile / "process_0"}'
  assert line in trained[0] and 'process_1 beside it' in trained[0]
  assert 'a profile' not in trained[1]


def test_they_start_from_the_weights_that_one_saved(one, tmp_path):
  """A step too small to see leaves them as they were read.

  Their only save fails in the second process, so both make it once more.
  """
  values = {'train__init_from': one, 'train__num_steps': 1}
  values['optimizer__learning_rate'] = 1e-9
  running = begin(training(tmp_path, **values), before=FAIL_ONCE)
  first, second = end(running, 0, 0)
  assert 'step 1 could not be written (process 1: Input/output err' in first
  told = f'starting from the EMA parameters of step 4 of {one}'
  assert told in first and told not in second
  expected, mine = state(one, 4), state(tmp_path, 1)
  for name, value in mine.items():
    field, _, rest = name.partition('/')
    if field in ('params', 'ema_params'):
      np.testing.assert_allclose(
        value, expected[f'ema_params/{rest}'], atol=1e-7, err_msg=name
      )


def test_they_write_snapshots_and_make_an_average_as_one(tmp_path):
  """In a split layout; a second command lets each read what both wrote."""
  workdir, out = tmp_path / 'run', tmp_path / 'wide'
  averages = {
    'ema__power_stds': '(0.05, 0.10)',
    'ema__snapshot_every_steps': 1,
    'train__sample_every_steps': 0,
    'eval__every_steps': 0,
    'mesh__data': 1,
    'mesh__fsdp': 2,
  }
  made = ['ema', workdir, '--std=0.08', f'--out={out}']
  told, _ = together(training(workdir, **averages), made)
  assert 'std=0.08 of step 4, from 4 snapshots' in told
  alone = tmp_path / 'alone'
  assert smoke_runs.cdm(*made[:3], f'--out={alone}') == 0
  mine, theirs = state(alone, 4), state(out, 4)
  assert mine.keys() == theirs.keys() and len(mine) > 10
  for name, value in mine.items():
    np.testing.assert_allclose(theirs[name], value, atol=1e-6)


def test_only_the_first_talks_and_writes(two):
  _, trained, drew = two
  for first, second in (trained, drew):
    assert 'cdm' not in second.replace('cdm/', '')
    assert len(first) > len(second)
  assert 'continuing from the checkpoint of step 2' in trained[0]
  assert 'on 2 cpu devices' in trained[0]
  assert f'3 of {SAMPLES} are already in' in drew[0]


def test_they_draw_what_one_draws(two):
  folder, _, _ = two
  alone, drawn = (
    images(folder / name / 'smoke') for name in ('alone', 'drawn')
  )
  assert np.abs(drawn - alone).max() <= 1
  assert (drawn != alone).mean() < 0.01
  with np.load(folder / 'drawn' / 'samples.npz') as archive:
    np.testing.assert_array_equal(archive['arr_0'], drawn)


def test_they_enlarge_pictures_as_one_does(two):
  folder, _, _ = two
  names = {f'{n}{end}.png' for n in range(3) for end in ('', '_compare')}
  for name in names:
    one, both = (
      np.asarray(Image.open(folder / f'large_{who}' / name), int)
      for who in ('one', 'two')
    )
    assert np.abs(one - both).max() <= 1, name
  written = {path.name for path in (folder / 'large_two').iterdir()}
  assert names <= written and not [n for n in written if 'partial' in n]


def test_they_write_whole_shards_of_what_one_draws(two):
  """Five images in shards of two: one process writes the second alone."""
  folder, _, _ = two
  pytest.importorskip('array_record')
  source = array_record.ArrayRecords(folder / 'shards')
  drawn = np.stack([source[n]['image'] for n in range(SAMPLES)]).astype(int)
  alone = images(folder / 'alone' / 'smoke')
  assert np.abs(drawn - alone).max() <= 1
  assert [int(source[n]['label']) for n in range(SAMPLES)] == [0, 1, 2, 3, 0]
  assert len(source.index['shards']) == 3
  assert (folder / 'shards' / 'samples.png').exists()


def test_they_score_as_one_does(two):
  folder, _, _ = two
  mine, expected = (
    json.loads((folder / f'{name}.json').read_text(encoding='utf-8'))
    for name in ('two', 'one')
  )
  assert mine == expected
  assert mine['n'] == SAMPLES


@pytest.mark.parametrize('command', ['train', 'cas'])
def test_one_that_is_preempted_stops_all_at_one_step(command, tmp_path):
  """SIGTERM to the second; both save the same step and say 75."""
  names = 'train__num_steps', 'train__save_every_steps'
  endless = dict.fromkeys(names, 10**6)
  # A state that is evaluated is saved too, because it may be the best.
  words = training(tmp_path, **endless, eval__every_steps=10**6)
  if command == 'cas':
    words = [
      *('cas', f'--config={smoke_runs.CONFIGS / "smoke_cas.py"}', words[2]),
      *(f'--config.{k.replace("__", ".")}={v}' for k, v in endless.items()),
      '--config.train.log_every_steps=2',
    ]
  running = begin(words)
  while not (tmp_path / 'scalars.jsonl').exists() or not record(tmp_path):
    assert [process.poll() for process in running] == [None, None]
    time.sleep(0.1)
  running[1].send_signal(signal.SIGTERM)
  first, _ = end(running, *[exit_codes.PREEMPTED.code] * 2)
  steps = reader.complete_steps(tmp_path)
  assert len(steps) == 1, (steps, first)
  (step,) = steps
  assert f'preempted: stopped after step {step} of 1000000' in first or (
    f'SIGTERM: stopped after step {step} of 1000000' in first
  )


def test_a_folder_in_use_refuses_both_and_both_hold_it_as_one(tmp_path):
  """Process 0 looks at the lock, and tells the other what it found."""
  workdir = tmp_path / 'run'
  with folder_lock.FolderLock(workdir, 'cdm train'):
    refused = end(begin(training(workdir)), *[exit_codes.BAD_INPUT.code] * 2)
  for output in refused:
    assert f'run is in use by `cdm train` on {socket.gethostname()}' in output
    assert 'Traceback' not in output
  assert not workdir.exists()


def sessions(workdir):
  lines = (workdir / 'sessions.jsonl').read_text(encoding='utf-8').splitlines()
  return [json.loads(line) for line in lines]


def test_a_damaged_checkpoint_is_set_aside_by_both(two, tmp_path):
  folder, _, _ = two
  workdir = tmp_path / 'run'
  shutil.copytree(folder / 'run', workdir)
  values = max(
    (workdir / 'checkpoints' / '4' / 'state').glob('**/d/*'),
    key=lambda file: file.stat().st_size,
  )
  values.write_bytes(values.read_bytes()[:-1])
  first, second = together(training(workdir), both=CACHED)
  assert 'The checkpoint of step 4 is damaged' in first
  # And the programs of the start before are used again, in both.
  for output in (first, second):
    assert re.search(r'found [1-9]\d* made 0\n', output), output
  starts = [session['start_seconds'] for session in sessions(workdir)]
  assert len(starts) == 3 and min(starts) > 0
  assert 'continuing from the checkpoint of step 2' in first
  assert (workdir / 'checkpoints_damaged' / '4').is_dir()
  expected, mine = state(folder / 'run', 4), state(workdir, 4)
  for name, value in expected.items():
    np.testing.assert_array_equal(mine[name], value, err_msg=name)


def test_a_data_error_of_one_ends_both_and_is_told_by_both(tmp_path):
  failure = "raise OSError(6, 'No such device or address', 'photo.png')"
  running = begin(
    training(tmp_path, train__num_steps=10**6),
    before=AT_STEP_6.format(failure=failure),
  )
  first, second = end(running, *[exit_codes.DATA_ERROR.code] * 2)
  told = "failed. OSError: [Errno 6] No such device or address: 'photo.png'"
  assert 'cdm: data error: process 1: Reading the batch of step' in first
  assert 'cdm: data error: Reading the batch of step' in second
  assert told in first and told in second
  (session,) = sessions(tmp_path)
  assert (session['ended'], session['exit_code']) == ('data error', 4)
  kept = sorted(path.name for path in (tmp_path / 'failures').iterdir())
  assert [name.split('-', 1)[1] for name in kept] == [
    'data-error-process-1.txt',
    'data-error.txt',
  ]


def test_who_loses_the_other_ends_with_a_code_that_starts_again(tmp_path):
  running = begin(
    training(tmp_path, train__num_steps=10**6),
    before=AT_STEP_6.format(failure='os.kill(os.getpid(), signal.SIGKILL)'),
  )
  first, _ = end(running, exit_codes.LOST_PEERS.code, -signal.SIGKILL)
  assert 'cdm: lost the other processes: ' in first
  (session,) = sessions(tmp_path)
  assert session['exit_code'] == exit_codes.LOST_PEERS.code


HANGS = {'train__watchdog_end_seconds': 3, 'train__log_every_steps': 1}
# Of limits that are for clusters, in seconds that a test can wait.
SOON = """
from cdm.distributed import peer_monitor
from cdm.training import hang, watchdog
peer_monitor.HEARTBEAT_INTERVAL_S = 1.0
watchdog.FIRST_FACTOR = 100  # for the first step, which compiles
hang.PART_S = 5
"""


@pytest.mark.parametrize(
  ('failure', 'codes'),
  [
    # A read that blocks; the other waits in the collective of the step.
    (
      'import time; time.sleep(3600)',
      (exit_codes.NO_PROGRESS.code, exit_codes.NO_PROGRESS.code),
    ),
    # A process that is stopped: the other misses its heartbeat.
    (
      'os.kill(os.getpid(), signal.SIGSTOP)',
      (exit_codes.LOST_PEERS.code, -signal.SIGKILL),
    ),
  ],
  ids=['a read that blocks', 'a process that is stopped'],
)
def test_a_hang_of_one_ends_both_with_a_code_that_starts_again(
  tmp_path, failure, codes, monkeypatch
):
  """And the storage keeps where every thread of who noticed stood."""
  monkeypatch.setenv('CDM_HEARTBEAT_SECONDS', '15')
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '1')
  hangs = HANGS if 'SIGSTOP' not in failure else {}
  words = training(tmp_path, **{'train__num_steps': 10**6} | hangs)
  running = begin(words, before=AT_STEP_6.format(failure=failure), both=SOON)
  if 'SIGSTOP' in failure:
    try:
      running[0].wait(timeout=600)
    finally:
      running[1].kill()  # As a launcher does.
  end(running, *codes)
  (session,) = sessions(tmp_path)
  assert session['exit_code'] in codes
  reports = list((tmp_path / 'failures').glob('*.txt'))
  texts = [path.read_text(encoding='utf-8') for path in reports]
  assert any('MainThread' in text for text in texts), reports


@pytest.mark.parametrize(
  ('environment', 'expected'),
  [
    ({}, None),
    ({'SLURM_JOB_ID': '1', 'SLURM_STEP_NUM_TASKS': '2'}, 'slurm'),
    ({'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '2'}, None),  # its batch script
    ({'SLURM_JOB_ID': '1', 'SLURM_STEP_NUM_TASKS': '1'}, None),
    ({'OMPI_COMM_WORLD_SIZE': '4'}, 'mpi'),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, 'tpu'),
    ({'TPU_WORKER_HOSTNAMES': 'a'}, None),
    (
      {'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_COORDINATOR_ADDRESS': 'b'},
      'tpu',
    ),
    ({'TPU_WORKER_HOSTNAMES': 'a,b', 'JAX_PLATFORMS': 'cpu'}, None),
  ],
)
def test_other_processes_are_found_by_what_the_launcher_left(
  environment, expected
):
  assert initialize.detect(environment) == expected


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (('host:1', 2, None), '--process_id missing'),
    ((None, 2, None), '--coordinator_address and --process_id missing'),
    (('host', 2, 0), 'expected HOST:PORT of process 0'),
    (('host:1', 2, 2), 'numbered 0 to P - 1'),
    (('host:1', 0, 0), 'numbered 0 to P - 1'),
  ],
)
def test_flags_that_do_not_belong_together_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    initialize.join(*given, environment={})


def test_variables_count_as_flags_do():
  environment = dict(
    zip(initialize.VARIABLES, ('host:1', '2', 'x'), strict=True)
  )
  with pytest.raises(ValueError, match='CDM_PROCESS_ID is .x.; it must be'):
    initialize.join(environment=environment)
  del environment['CDM_PROCESS_ID']
  with pytest.raises(ValueError, match='--process_id missing'):
    initialize.join(environment=environment)
