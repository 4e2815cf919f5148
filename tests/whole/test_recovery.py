"""How `cdm train` ends when something goes wrong, seen from outside."""

import errno
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import conftest
import jax
import numpy as np
import pytest
from support import failing_disks, small_disks, smoke_runs

from cdm.config import loader
from cdm.data import synthetic
from cdm.distributed import exit_codes, lock_owner
from cdm.training import restarts, run_config

ROOT = smoke_runs.CONFIGS.parent
BATCH = 8  # images of a step of the smoke config


@pytest.fixture
def begin(tmp_path, capfd):
  """-> begin(**overrides): (exit code, stderr) of a run in tmp_path/run."""

  def run(**overrides):
    overrides = {k.replace('__', '.'): v for k, v in overrides.items()}
    # One thread reads the images in their order, see `on_image`.
    values = smoke_runs.SMALL | {'pipeline.read_threads': 1} | overrides
    words = [f'--config.{k}={v}' for k, v in values.items()]
    with smoke_runs.on(1):
      code = smoke_runs.cdm(
        'train',
        f'--config={smoke_runs.CONFIGS / "smoke.py"}',
        f'--workdir={tmp_path / "run"}',
        *words,
      )
    return code, capfd.readouterr().err

  return run


@pytest.fixture
def on_image(monkeypatch):
  """-> on_image(n, act): calls `act` when the n-th image is read.

  With ever=True, for every image from the n-th on.
  """

  def arrange(n, act, ever=False):
    # A run before may still be reading a batch that nobody waits for.
    while any('grain' in thread.name for thread in threading.enumerate()):
      time.sleep(0.01)
    numbers, read = itertools.count(1), synthetic.Synthetic.__getitem__

    def counted(self, index):
      number = next(numbers)
      if number == n or (ever and number > n):
        act()
      return read(self, index)

    monkeypatch.setattr(synthetic.Synthetic, '__getitem__', counted)

  return arrange


def sessions(workdir):
  lines = (workdir / 'sessions.jsonl').read_text(encoding='utf-8').splitlines()
  return [json.loads(line) for line in lines]


def only_failure(workdir):
  (path,) = (workdir / 'failures').iterdir()
  return path, path.read_text(encoding='utf-8')


def send(signum):
  return lambda: os.kill(os.getpid(), signum)


def test_a_preempted_run_says_so_and_goes_on_bit_for_bit(
  tmp_path, begin, on_image
):
  on_image(3 * BATCH, send(signal.SIGTERM))
  code, err = begin()
  assert code == 75
  assert 'SIGTERM: finishing the step and saving' in err
  assert 'the same command continues from there' in err
  (session,) = sessions(tmp_path / 'run')
  assert (session['ended'], session['exit_code']) == ('preempted', 75)
  assert session['last_step'] < 4
  code, _ = begin()
  assert code == 0
  last = sessions(tmp_path / 'run')[-1]
  assert (last['ended'], last['first_step'], last['last_step']) == (
    'complete',
    session['last_step'],
    4,
  )
  whole = smoke_runs.state(smoke_runs.trained() / 'base', 4)
  for name, value in smoke_runs.state(tmp_path / 'run', 4).items():
    np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_preempted_while_starting_is_preempted_too(
  tmp_path, begin, monkeypatch
):
  monkeypatch.setattr(
    'cdm.training.run_summary.print_config_changes', lambda *_: send(15)()
  )
  code, err = begin()
  assert code == 75
  assert 'stopped after step 0 of 4; the same command' in err
  assert sessions(tmp_path / 'run')[-1]['ended'] == 'preempted'
  assert not any((tmp_path / 'run' / 'checkpoints').iterdir())


def test_ctrl_c_has_a_code_of_its_own(tmp_path, begin, on_image):
  on_image(3 * BATCH, send(signal.SIGINT))
  assert begin()[0] == 130
  assert sessions(tmp_path / 'run')[-1]['ended'] == 'interrupted'


def test_a_data_error_names_the_step_and_keeps_the_traceback(
  tmp_path, begin, on_image
):
  def fail():
    raise OSError(errno.ENXIO, 'No such device or address', '/data/shard-3')

  on_image(6 * BATCH, fail, ever=True)
  code, err = begin(train__num_steps=40)
  assert code == 4
  path, text = only_failure(tmp_path / 'run')
  lines = [s for s in err.splitlines() if s.startswith('cdm: ')]
  assert lines[0].endswith(f'the whole traceback: {path}')
  assert lines[1].startswith('cdm: data error: Reading the batch of step ')
  assert "No such device or address: '/data/shard-3'" in lines[1]
  assert err.endswith(f'{lines[1]}\n')
  assert 'Traceback' not in err
  # The original comes first, with the frame that raised it.
  assert 'in fail\n    raise OSError(errno.ENXIO' in text
  assert sessions(tmp_path / 'run')[-1]['ended'] == 'data error'


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    (1, 'The first images of config.train_data could not be read. OSError'),
    (2, 'The first batch could not be read. OSError'),
  ],
)
def test_a_first_batch_that_cannot_be_read_is_a_data_error(
  tmp_path, begin, on_image, image, message
):
  """One image is looked at before the first batch is read."""

  def fail():
    raise OSError(errno.ENXIO, 'No such device or address', '/data/shard-0')

  on_image(image, fail, ever=True)
  code, err = begin()
  assert code == 4 and message in err


def test_a_storage_that_does_not_answer_ends_with_a_code_that_starts_again(
  tmp_path, begin, on_image, monkeypatch
):
  """After the reads of that time; the next start goes on bit for bit."""
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '0.5')

  def fail():
    raise OSError(errno.EIO, 'Input/output error', '/data/shard-3')

  on_image(3 * BATCH, fail, ever=True)
  code, err = begin()
  assert code == exit_codes.NO_STORAGE.code == 75
  last = err.splitlines()[-1]
  assert last.startswith('cdm: the storage does not answer: Reading the batch')
  assert 'failed again and again for' in last and '/data/shard-3' in last
  session = sessions(tmp_path / 'run')[-1]
  assert session['ended'] == 'the storage does not answer'
  monkeypatch.undo()
  assert begin()[0] == 0
  whole = smoke_runs.state(smoke_runs.trained() / 'base', 4)
  for name, value in smoke_runs.state(tmp_path / 'run', 4).items():
    np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_reads_that_fail_for_a_moment_leave_the_run_as_it_was(
  tmp_path, begin, on_image
):
  times = iter(range(3))

  def fail():
    if next(times, None) is not None:
      raise OSError(errno.ESTALE, 'Stale file handle', '/data/shard-3')

  on_image(2 * BATCH, fail, ever=True)
  assert begin()[0] == 0
  whole = smoke_runs.state(smoke_runs.trained() / 'base', 4)
  for name, value in smoke_runs.state(tmp_path / 'run', 4).items():
    np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_a_run_that_was_started_in_vain_too_often_ends_for_good(
  tmp_path, begin
):
  """In one sentence and with a final code; started by hand it goes on."""
  workdir = tmp_path / 'run'
  assert begin(train__num_steps=2)[0] == 0
  for _ in range(2):
    restarts.Restarts(workdir, restarts.Limits(0, 0, 0)).begin(2)
  record = workdir / 'scalars.jsonl'
  before = record.read_bytes()
  code, err = begin(train__max_restarts_in_vain=2)
  assert code == exit_codes.TOO_MANY_RESTARTS.code == 2
  assert 'cdm: started again too often: The run was started 2 times' in err
  assert 'Traceback' not in err and record.read_bytes() == before
  assert sessions(workdir)[-1]['ended'] == 'started again too often'
  assert begin(train__max_restarts_in_vain=2)[0] == 0


def test_running_out_of_device_memory_is_called_that(
  tmp_path, begin, monkeypatch
):
  def full(*_, **__):
    raise jax.errors.JaxRuntimeError(
      'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.'
    )

  monkeypatch.setattr('cdm.training.prefetch.device_mesh.shard_batch', full)
  code, err = begin()
  assert code == 5
  assert 'cdm: out of memory: RESOURCE_EXHAUSTED' in err
  _, text = only_failure(tmp_path / 'run')
  assert text.startswith('out of memory, after step 0') and 'in full' in text
  assert sessions(tmp_path / 'run')[-1]['exit_code'] == 5


def test_a_loss_that_is_not_finite_is_called_that(tmp_path, begin):
  code, err = begin(optimizer__learning_rate=1e30, train__num_steps=20)
  assert code == 3
  assert 'cdm: not finite: ' in err and "on_divergence='rollback'" in err
  assert sessions(tmp_path / 'run')[-1]['ended'] == 'not finite'


def test_a_fault_of_the_program_is_recorded_and_raised(
  tmp_path, begin, monkeypatch
):
  monkeypatch.setattr(
    'cdm.training.run_summary.print_run_summary', lambda *_: {}['no such key']
  )
  with pytest.raises(KeyError, match='no such key') as caught:
    begin()
  path, text = only_failure(tmp_path / 'run')
  assert 'in <lambda>' in text
  assert str(path) in caught.value.annotation
  session = sessions(tmp_path / 'run')[-1]
  assert (session['ended'], session['exit_code']) == (exit_codes.FAULT.kind, 1)


def test_a_refused_start_leaves_no_trace(tmp_path, begin):
  code, _ = begin(pipeline__min_side=999)  # found in the first batch
  assert code == 2
  assert not (tmp_path / 'run').exists()


def test_a_mount_that_renames_no_folder_is_refused_before_the_first_step(
  tmp_path, begin, monkeypatch
):
  monkeypatch.setattr(os, 'rename', failing_disks.rename_in_a_flat_bucket)
  code, err = begin()
  assert code == 2
  assert 'cannot rename a folder' in err and '--workdir=gs://' in err
  assert 'ulimit' not in err and 'compiling' not in err
  assert not (tmp_path / 'run').exists()


def start_in_its_own_process(workdir, **overrides):
  overrides = {k.replace('__', '.'): v for k, v in overrides.items()}
  words = [
    f'--config.{k}={v}' for k, v in (smoke_runs.SMALL | overrides).items()
  ]
  return subprocess.Popen(
    [sys.executable, '-m', 'cdm', 'train', f'--workdir={workdir}',
     f'--config={smoke_runs.CONFIGS / "smoke.py"}', *words],
    cwd=ROOT,
    env={
      **os.environ,
      **smoke_runs.programs(),
      'XLA_FLAGS': ' '.join(conftest.COMPILER_FLAGS),
    },
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True, encoding='utf-8'
  )  # fmt: skip


def test_a_second_start_is_refused_and_a_killed_one_is_taken_over(
  tmp_path, begin
):
  lock = tmp_path / 'run' / lock_owner.LOCK
  first = start_in_its_own_process(tmp_path / 'run')
  while lock_owner.read(lock) is None:
    assert first.poll() is None
    time.sleep(0.02)
  code, err = begin()
  assert code == 2
  assert 'run is in use by `cdm train` on ' in err
  assert f'(process {first.pid}, since ' in err and 'another --workdir' in err
  assert first.poll() is None  # It was not disturbed.
  first.kill()
  first.communicate()
  assert lock.exists()
  code, err = begin()
  assert code == 0
  assert f'(process {first.pid}, since ' in err and 'takes it over' in err
  assert not list((tmp_path / 'run').glob('.*'))


def test_a_full_disk_is_the_last_line_and_no_thread_adds_a_traceback(
  tmp_path, monkeypatch
):
  # Its records wait for space for so long.
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '2')
  with small_disks.mounted(tmp_path / 'disk', '600k') as disk:
    run = start_in_its_own_process(
      disk / 'run', train__num_steps=40, train__keep_checkpoints=5
    )
    err = run.communicate()[1]
  assert run.returncode == 2
  assert 'warning: 6 more checkpoints of about 198 kB' in err
  assert 'Traceback' not in err
  last = err.splitlines()[-1]
  assert last.startswith('cdm: error: Cannot write ')
  assert 'No space left on device' in last


def test_the_watchdog_tells_what_hangs_and_the_run_goes_on(
  tmp_path, begin, on_image
):
  def told():
    """What was kept of reports that the run waits for data."""
    texts = [
      p.read_text(encoding='utf-8')
      for p in (tmp_path / 'run').glob('failures/*')
    ]
    # A busy machine may have waited before, for something else: while it saves
    # the checkpoint of step 8, the reader already hangs and is in that report.
    begins = 'watchdog: waiting for data'
    return [t for t in texts if t.startswith(begins) and 'in hang' in t]

  def hang():
    end = time.monotonic() + 60
    while not told() and time.monotonic() < end:
      time.sleep(0.05)

  on_image(12 * BATCH, hang)
  code, err = begin(
    train__num_steps=16,
    # One thread reads in the order of the steps. Of many, one that the machine
    # left waiting may read an image of a step that comes after the last.
    pipeline__read_threads=1,
    train__watchdog_factor=1.5,
    train__watchdog_seconds=1.0,
    train__sample_every_steps=0,
  )
  assert code == 0
  assert 'watchdog: waiting for data for' in err and 'in hang' in err
  assert 'in hang' in told()[0]


def test_runs_that_are_killed_at_random_end_the_same(
  tmp_path, capsys, monkeypatch
):
  """The short version of `benchmarks/kill_soak.py`."""
  monkeypatch.setenv('XLA_FLAGS', ' '.join(conftest.COMPILER_FLAGS))
  path = ROOT / 'benchmarks' / 'kill_soak.py'
  spec = importlib.util.spec_from_file_location('kill_soak', path)
  soak = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(soak)
  same = soak.soak(tmp_path, rounds=1, seed=3, kills=(2, 2), warm=False)
  assert same == 1
  assert '1 of 1' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('on_divergence', 'hope', r"is 'hope'; known are \['stop', 'rollback'\]"),
    ('max_rollbacks', -1, r'max_rollbacks is -1; it must be a whole number'),
    (
      'grad_norm_spike_factor',
      0.5,
      r'grad_norm_spike_factor is 0.5; it must be 0 \(off\) or abo',
    ),
    (
      'save_every_minutes',
      -1.0,
      r'save_every_minutes is -1.0; it must be 0 \(off\) or above 0',
    ),
    (
      'local_copy_dir',
      'here',
      "local_copy_dir is 'here'; give the whole path of a folder on a local",
    ),
    (
      'watchdog_factor',
      1,
      r'watchdog_factor is 1.0; it must be 0 \(off\) or above 1',
    ),
    ('watchdog_seconds', 0, r'watchdog_seconds is 0.0; it must be above 0'),
    ('watchdog_end_factor', 1, r'watchdog_end_factor is 1; it must be above 1'),
    (
      'watchdog_end_seconds',
      -1,
      r'watchdog_end_seconds is -1; it must be 0 \(off\) or above 0',
    ),
    ('max_restarts_in_vain', -1, r'in_vain is -1; it must be a whole number'),
  ],
)
def test_what_makes_no_sense_is_refused(key, value, message):
  c = loader.load(smoke_runs.CONFIGS / 'smoke.py')
  with c.unlocked():
    c.train[key] = value
  with pytest.raises(ValueError, match=message):
    run_config.read_train_section(c)


def test_rollbacks_are_made_only_where_they_are_asked_for():
  c = loader.load(smoke_runs.CONFIGS / 'smoke.py')
  assert (
    c.train.max_rollbacks > 0
    and run_config.read_train_section(c).rollback_limit == 0
  )
  with c.unlocked():
    c.train.on_divergence = 'rollback'
  assert (
    run_config.read_train_section(c).rollback_limit == c.train.max_rollbacks
  )
