"""Runs that are stopped, killed, fed badly or diverge, and go on."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support import tiny_run

from cdm.checkpointing import reader, save_patience, state_arrays
from cdm.distributed import exit_codes
from cdm.reporting import metric_writer
from cdm.training import hooks, running_metrics
from cdm.training.preemption import Stop

TESTS = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """A run of eight steps that nothing disturbed; lines at 3, 6 and 8."""
  run = tiny_run.Run(tmp_path_factory.mktemp('uninterrupted'))
  return run, run.train(8)


def signal_at(index, signum=signal.SIGTERM):
  """Sends this process a signal when batch `index` is read."""
  return lambda i: os.kill(os.getpid(), signum) if i == index else None


def test_resuming_changes_nothing(tmp_path, uninterrupted):
  """8 = 2 + restore + 3 + restore + 3, bit for bit.

  The stops fall between log lines and between checkpoints.
  """
  whole, expected = uninterrupted
  trained = []
  for stop_at in (2, 5, None):
    run = tiny_run.Run(tmp_path)
    stop = Stop()

    def counted(state, batch, stop=stop, stop_at=stop_at):
      trained.append(np.asarray(batch['image']))
      if len(trained) == stop_at:
        stop.signum = signal.SIGTERM
      return tiny_run.step()(state, batch)

    outcome = run.train(8, step_fn=counted, stop=stop)
    assert outcome.step == (stop_at or 8)
  tiny_run.assert_same(outcome.state, expected.state)
  assert run.record() == whole.record()
  assert [row['step'] for row in run.record()] == [3, 6, 8]
  for k, image in enumerate(trained):
    np.testing.assert_array_equal(image, tiny_run.batch_at(k)['image'])
  assert len(trained) == 8


def test_the_saved_position_is_of_the_batches_trained_on(tmp_path):
  """Reading ahead must not lose the batches that were read and not used."""
  run = tiny_run.Run(tmp_path)
  slow = tiny_run.step()

  def step(state, batch):
    time.sleep(0.1)  # the reader gets ahead as far as it may
    return slow(state, batch)

  run.train(2, step_fn=step)
  assert len(run.batches.given) > 2
  resumed = tiny_run.Run(tmp_path)
  resumed.train(3)
  assert resumed.batches.given[0] == 2


@pytest.mark.parametrize(
  ('signum', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_a_signal_finishes_the_step_saves_and_has_its_own_code(
  tmp_path, signum, code, capfd
):
  before = signal.getsignal(signum)
  run = tiny_run.Run(
    tmp_path, batches=tiny_run.Batches(before=signal_at(5, signum))
  )
  outcome = run.train(1000)
  assert outcome.exit_code == code
  assert 1 <= outcome.step <= 6
  assert reader.complete_steps(tmp_path)[-1] == outcome.step
  assert signal.getsignal(signum) is before
  assert 'finishing the step and saving' in capfd.readouterr().err


def test_a_signal_does_not_wait_for_data_that_never_comes(tmp_path):
  trained = threading.Semaphore(0)

  def hang(index):
    if index == 3:
      for _ in range(3):
        trained.acquire()
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(2)

  def step(state, batch):
    trained.release()
    return tiny_run.step()(state, batch)

  run = tiny_run.Run(tmp_path, batches=tiny_run.Batches(before=hang))
  assert run.train(1000, step_fn=step).step == 3
  assert reader.complete_steps(tmp_path)[-1] == 3


def test_a_complete_run_is_left_alone_and_says_so(tmp_path, uninterrupted):
  whole, expected = uninterrupted
  record = whole.record()
  again = tiny_run.Run(whole.workdir)
  outcome = again.train(8)
  assert outcome.exit_code == 0
  assert again.batches.given == []
  assert again.record() == record
  tiny_run.assert_same(outcome.state, expected.state)


def poison(at):
  """A step whose loss and gradient are not finite from one step on."""

  def step(state, batch):
    number = int(state.step) + 1
    state, scalars = tiny_run.step()(state, batch)
    if number >= at:
      nan = jnp.float32(np.nan)
      scalars = scalars | {'grad_norm': nan, 'loss': nan}
    return state, scalars

  return step


def test_nan_names_the_steps_and_leaves_the_last_good_checkpoint(tmp_path):
  run = tiny_run.Run(tmp_path)
  message = (
    'loss is nan at step 5 .found at step 6: steps 5 to 6 are lost.; '
    'the last good checkpoint is step 4'
  )
  with pytest.raises(running_metrics.Diverged, match=message):
    run.train(100, step_fn=poison(5), log_every=50, save_every=2)
  assert reader.complete_steps(tmp_path) == [2, 4]
  # And from there it goes on, with the very batch that comes next.
  resumed = tiny_run.Run(tmp_path)
  assert resumed.train(6).step == 6
  assert resumed.batches.given[0] == 4


def test_nan_before_the_first_checkpoint_saves_none(tmp_path):
  with pytest.raises(
    running_metrics.Diverged, match='no checkpoint was saved before'
  ):
    tiny_run.Run(tmp_path).train(
      100, step_fn=poison(1), log_every=3, save_every=9
    )
  assert reader.complete_steps(tmp_path) == []
  assert tiny_run.Run(tmp_path).record() == []


def test_nan_in_the_last_steps_is_not_saved_either(tmp_path):
  with pytest.raises(running_metrics.Diverged, match='at step 3'):
    tiny_run.Run(tmp_path).train(
      3, step_fn=poison(3), log_every=9, save_every=2
    )
  assert reader.complete_steps(tmp_path) == [2]


def test_a_real_overflow_is_noticed(tmp_path):
  """Not the scalars but the data are bad here: the gradient overflows."""

  def step(state, batch):
    big = state.params['up']['kernel'] * (1e38 if int(state.step) == 2 else 1)
    params = {**state.params, 'up': {**state.params['up'], 'kernel': big}}
    return tiny_run.step()(state.replace(params=params), batch)

  with pytest.raises(running_metrics.Diverged, match='is (inf|nan) at step 3'):
    tiny_run.Run(tmp_path).train(100, step_fn=step, log_every=4)


def test_data_that_ends_early_says_what_to_do(tmp_path):
  run = tiny_run.Run(tmp_path, batches=tiny_run.Batches(end=2))
  with pytest.raises(
    exit_codes.DataError, match='ended after step 2.*repeat=True'
  ):
    run.train(5)


def test_an_error_in_the_data_is_called_that_and_keeps_its_traceback(tmp_path):
  def fail(index):
    if index == 3:
      raise KeyError('shard-00017')

  run = tiny_run.Run(tmp_path, batches=tiny_run.Batches(before=fail))
  message = "batch of step 4 failed. KeyError: 'shard-00017'"
  with pytest.raises(exit_codes.DataError, match=message) as caught:
    run.train(10)
  frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
  assert frames[-1].name == 'fail'
  assert exit_codes.classify(caught.value) is exit_codes.DATA_ERROR
  assert reader.complete_steps(tmp_path) == [2]  # completed on the way out


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
  run = tiny_run.Run(tmp_path, batches=tiny_run.Batches(size=12))
  with pytest.raises(ValueError, match='Global batch 12 .* 8 or 16'):
    run.train(2)


def test_time_spent_waiting_for_data_is_seen(tmp_path):
  slow = tiny_run.Batches(before=lambda _: time.sleep(0.1))
  tiny_run.Run(tmp_path, batches=slow).train(12, log_every=6, save_every=12)
  row = metric_writer.read_scalars(tmp_path / metric_writer.SCALARS)[-1]
  assert row['data_wait_fraction'] > 0.5
  assert row['step_seconds'] > 0.08
  rate = tiny_run.BATCH / row['step_seconds']
  assert row['images_per_second'] == pytest.approx(rate)


def test_a_line_waits_for_no_step_that_is_still_on_its_way(
  tmp_path, monkeypatch
):
  """A queue that is emptied at every line leaves the device without work."""
  drain, drained = running_metrics.RunningMetrics.drain, []

  def count(metrics, *, leave=0, up_to=None):
    if up_to is not None and metrics._waiting:
      drained.append((up_to, metrics._waiting[-1][0]))
    drain(metrics, leave=leave, up_to=up_to)

  monkeypatch.setattr(running_metrics.RunningMetrics, 'drain', count)
  # How many steps are on their way when a line is due depends on the machine,
  # and a line whose steps all are has no rates.
  monkeypatch.setattr(running_metrics.RunningMetrics, 'in_flight', lambda _: 0)
  run = tiny_run.Run(tmp_path)
  run.train(14, log_every=5, save_every=12)
  assert [row['step'] for row in run.record()] == [5, 10, 14]
  # The lines of 5 and 10 at 9 and 12, where a checkpoint is saved; the last.
  assert drained == [(5, 9), (10, 12), (12, 12), (14, 14)]
  rows = metric_writer.read_scalars(tmp_path / metric_writer.SCALARS)
  assert all(row['step_seconds'] > 0 for row in rows)


def test_the_lines_before_an_error_in_the_data_are_written(tmp_path):
  run = tiny_run.Run(tmp_path, batches=tiny_run.Batches(end=7))
  with pytest.raises(exit_codes.DataError, match='ended after step 7'):
    run.train(20, log_every=3, save_every=20)
  assert [row['step'] for row in run.record()] == [3, 6]


def evaluating(run, every=2, name='held_out/ema_loss', seen=None, **more):
  """-> hooks that evaluate a number of the parameters."""

  def evaluate(params, ema_params, stop_asked):
    if seen is not None and seen(stop_asked):
      return None
    return {
      'held_out/loss': float(jnp.sum(params['up']['bias'] ** 2)),
      name: float(jnp.sum(ema_params['up']['bias'] ** 2)),
    }

  return hooks.Hooks(
    evaluations=(hooks.Evaluator(name, every, evaluate),), **more
  )


def evaluated(run):
  return [r['step'] for r in run.record() if 'held_out/loss' in r]


def test_samples_come_from_the_average_and_evaluations_from_both(tmp_path):
  seen = []

  def draw(ema_params):
    seen.append(np.asarray(ema_params['up']['kernel']).copy())
    return np.full((4, 4, 3), len(seen), np.uint8)

  run = tiny_run.Run(tmp_path)
  outcome = run.train(
    5, sample_every=2, hooks=evaluating(run, every=3, draw_samples=draw)
  )
  grids = sorted(p.name for p in (tmp_path / 'grids').iterdir())
  assert grids == [f'samples_0000000{k}.png' for k in (2, 4, 5)]
  last = np.asarray(Image.open(tmp_path / 'grids' / grids[-1]))
  assert (last == 3).all()
  state = outcome.state
  ema = np.asarray(state.ema_params['up']['kernel'])
  np.testing.assert_array_equal(seen[-1], ema)
  assert not np.array_equal(ema, state.params['up']['kernel'])
  assert evaluated(run) == [3, 5]
  row = run.record()[-1]
  assert row['held_out/ema_loss'] == float(
    jnp.sum(state.ema_params['up']['bias'] ** 2)
  )
  assert row['held_out/loss'] == float(jnp.sum(state.params['up']['bias'] ** 2))


def test_what_an_evaluation_keeps_goes_once_its_numbers_are_recorded(tmp_path):
  run, forgot, stop = tiny_run.Run(tmp_path), [], Stop()
  stops = [False, True, False]

  def evaluate(params, ema_params, stop_asked):
    if stops.pop(0):
      stop.signum = signal.SIGTERM
      return None
    return {'held_out/loss': 1.0}

  made = hooks.Evaluator(
    'held_out/loss', 2, evaluate, lambda: forgot.append(evaluated(run))
  )
  given = hooks.Hooks(evaluations=(made,))
  assert run.train(4, hooks=given, stop=stop).step == 4
  assert forgot == [[2]] and evaluated(run) == [2]
  run.train(4, hooks=given)
  assert forgot == [[2], [2, 4]]


def test_a_kill_between_save_and_evaluation_leaves_the_same_record(tmp_path):
  """Step 4 is saved; the process ends in its evaluation, or in its grid."""
  drawn = np.zeros((4, 4, 3), np.uint8)

  def run_in(folder, fail=None):
    run = tiny_run.Run(tmp_path / folder)

    def seen(stop_asked):
      return fail == 'evaluation' and evaluated(run) == [2] and int('killed')

    def draw(_):
      row = evaluated(run)
      return drawn if fail != 'grid' or row != [2] else int('killed')

    run.train(
      6, sample_every=2, hooks=evaluating(run, seen=seen, draw_samples=draw)
    )
    return run

  whole = run_in('whole')
  assert evaluated(whole) == [2, 4, 6]
  for place in ('evaluation', 'grid'):
    with pytest.raises(ValueError, match='killed'):
      run_in(place, fail=place)
    assert reader.complete_steps(tmp_path / place)[-1] == 4
    again = run_in(place)
    assert again.record() == whole.record()
    assert len(list((tmp_path / place / 'grids').iterdir())) == 3
    assert again.batches.given[0] == 4  # nothing was trained twice


@pytest.mark.parametrize('last', [4, 8])
def test_a_stop_within_an_evaluation_saves_and_makes_it_later(tmp_path, last):
  """Asked at step 4, in the middle of the run or at its end."""
  run, stop = tiny_run.Run(tmp_path), Stop()

  def seen(stop_asked):
    if evaluated(run) == [2]:
      stop.signum = signal.SIGTERM
    return stop_asked()

  outcome = run.train(last, hooks=evaluating(run, seen=seen), stop=stop)
  assert (outcome.step, outcome.exit_code) == (4, 75)
  assert evaluated(run) == [2]
  again = tiny_run.Run(tmp_path)
  assert again.train(last, hooks=evaluating(again)).exit_code == 0
  assert evaluated(again) == list(range(2, last + 1, 2))


def test_evaluating_takes_its_share_of_the_time_and_no_speed(tmp_path):
  run = tiny_run.Run(tmp_path)

  def seen(_):
    time.sleep(0.3)
    return False

  run.train(6, log_every=3, hooks=evaluating(run, seen=seen))
  rows = metric_writer.read_scalars(tmp_path / metric_writer.SCALARS)
  rows = [row for row in rows if 'loss' in row]
  assert 0 < rows[0]['evaluation_fraction'] < rows[1]['evaluation_fraction'] < 1
  assert rows[1]['step_seconds'] < 0.1  # the interval holds one evaluation


def test_a_run_continues_on_another_mesh(tmp_path, uninterrupted):
  _, expected = uninterrupted
  tiny_run.Run(tmp_path, shape=(8, 1, 1)).train(4)
  outcome = tiny_run.Run(tmp_path, shape=(1, 1, 1)).train(8)
  assert len(outcome.state.params['up']['kernel'].devices()) == 1
  tiny_run.assert_same(outcome.state, expected.state, rtol=1e-3, atol=1e-5)


def test_it_fits_the_data(tmp_path):
  """Sixteen images through eight features: the loss falls by a third."""
  run = tiny_run.Run(tmp_path, batches=tiny_run.Batches())
  run.batches.set_state({'next': 0})
  fixed = tiny_run.batch_at(0)
  run.batches.__class__ = type(
    'Fixed', (tiny_run.Batches,), {'__next__': lambda self: fixed}
  )
  run.train(
    150, step_fn=tiny_run.step(tiny_run.noiseless), log_every=10, save_every=200
  )
  losses = [row['loss'] for row in run.record()]
  assert losses[-1] < 0.67 * losses[0]


SCRIPT = """
import sys, time, signal
sys.path[:0] = [{root!r}, {tests!r}]
import conftest
from support import tiny_run as tiny
slow = tiny.Batches(before=lambda i: time.sleep(0.2))
{body}
"""


def spawn(workdir, body):
  code = SCRIPT.format(root=str(TESTS.parent), tests=str(TESTS), body=body)
  return subprocess.Popen(
    [sys.executable, '-c', code, str(workdir)],
    stderr=subprocess.PIPE,
    text=True,
    encoding='utf-8',
  )


def wait_for(condition, process, seconds=60):
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.stderr.read()
    assert time.monotonic() < end
    time.sleep(0.01)


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, uninterrupted):
  """SIGKILL somewhere beyond the second checkpoint; then to the end."""
  whole, expected = uninterrupted
  killed = spawn(tmp_path, 'tiny.Run(sys.argv[1], batches=slow).train(8)')
  wait_for(lambda: len(reader.complete_steps(tmp_path)) > 1, killed)
  killed.kill()
  killed.communicate()
  assert reader.complete_steps(tmp_path)[-1] < 8
  resumed = tiny_run.Run(tmp_path)
  tiny_run.assert_same(resumed.train(8).state, expected.state)
  assert resumed.record() == whole.record()


def test_a_second_signal_ends_the_process_at_once(tmp_path):
  body = (
    'def hang(state, batch):\n'
    '  print("hanging", file=sys.stderr, flush=True)\n'
    '  time.sleep(60)\n'
    'tiny.Run(sys.argv[1], batches=slow).train(60, step_fn=hang)\n'
  )
  process = spawn(tmp_path, body)
  for line in process.stderr:
    if 'hanging' in line:
      break
  began = time.monotonic()
  process.send_signal(signal.SIGINT)
  for line in process.stderr:  # the first signal is answered
    if 'finishing the step and saving' in line:
      break
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=20) == 130
  assert time.monotonic() - began < 5
  assert 'ending at once' in process.stderr.read()
  process.stderr.close()


def test_the_compilation_cache_goes_where_it_is_told(tmp_path):
  code = (
    'import sys, jax\n'
    'from cdm.distributed import compilation_cache\n'
    'print(compilation_cache.enable_compilation_cache())\n'
    'print(compilation_cache.enable_compilation_cache(sys.argv[1]))\n'
    'jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)\n'
    'jax.jit(lambda x: x @ x)(jax.numpy.ones((9, 9))).block_until_ready()\n'
  )
  env = {**os.environ, 'XDG_CACHE_HOME': str(tmp_path / 'home')}
  env.pop('JAX_COMPILATION_CACHE_DIR', None)
  out = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path / 'told')],
    env=env,
    cwd=TESTS.parent,
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  ).stdout
  assert out.splitlines() == [
    str(tmp_path / 'home/cdm/xla'),
    str(tmp_path / 'told'),
  ]
  assert any((tmp_path / 'told').iterdir())


def test_a_window_continues_from_json_to_the_last_bit():
  """Thirds do not add up exactly; order and precision must be kept."""
  rows = [
    {'loss': np.float32(1 / (k + 3)), 'grad_norm': np.float32(k / 7)}
    for k in range(9)
  ]
  whole = running_metrics.RunningMetrics()
  for k, row in enumerate(rows):
    whole.add(k, row)
  whole.drain()
  part = running_metrics.RunningMetrics()
  for k, row in enumerate(rows[:4]):
    part.add(k, row)
  part.drain()
  rest = running_metrics.RunningMetrics(json.loads(json.dumps(part.to_json())))
  for k, row in enumerate(rows[4:]):
    rest.add(k, row)
  rest.drain(leave=2)
  rest.drain()
  assert rest.means() == whole.means()
  truth = np.mean([np.float64(row['loss']) for row in rows])
  assert whole.means()['loss'] == pytest.approx(truth, rel=1e-15)


@pytest.fixture
def fail_saves(monkeypatch):
  """-> fail_saves(which): these saves of the run fail, counted from 1."""
  merge, saves = state_arrays.merge, []

  def arrange(which):
    def merged(path):
      saves.append(path)
      if len(saves) in which:
        raise OSError(errno.EIO, 'Input/output error')
      merge(path)

    monkeypatch.setattr(state_arrays, 'merge', merged)
    return saves

  return arrange


def test_training_goes_on_while_saves_fail_and_changes_nothing(
  tmp_path, uninterrupted, fail_saves, monkeypatch
):
  """Saves are made at 2, 4, 6 and 8, and again at the step after a failure."""
  monkeypatch.setattr(save_patience, 'FIRST_PAUSE_S', 0.0)
  fail_saves({1, 2, 3})
  run = tiny_run.Run(tmp_path, keep=9, retry_seconds=600.0)

  def slow(state, batch):
    # A save is over before the next step asks how it went.
    for thread in threading.enumerate():
      if thread.name == 'save':
        thread.join()
    return tiny_run.step()(state, batch)

  outcome = run.train(8, step_fn=slow)
  whole, expected = uninterrupted
  tiny_run.assert_same(outcome.state, expected.state)
  assert run.record() == whole.record()
  steps = reader.complete_steps(tmp_path)
  # 2 failed, and 3 and 4 in its place; 5 came for them.
  assert steps == [5, 6, 8]


def test_the_last_state_is_saved_once_more_before_the_run_ends(
  tmp_path, uninterrupted, fail_saves, monkeypatch
):
  slept = []
  monkeypatch.setattr('cdm.training.loop.time.sleep', slept.append)
  fail_saves({4, 5, 6})
  outcome = tiny_run.Run(tmp_path, retry_seconds=600.0).train(8)
  assert outcome.ending is exit_codes.COMPLETE
  tiny_run.assert_same(outcome.state, uninterrupted[1].state)
  assert reader.complete_steps(tmp_path) == [4, 6, 8]
  assert slept == [1.0, 15.0, 20.0]


def test_a_run_whose_last_state_cannot_be_saved_says_what_is_lost(
  tmp_path, fail_saves, monkeypatch
):
  monkeypatch.setattr('cdm.training.loop.time.sleep', lambda seconds: None)
  monkeypatch.setattr(save_patience, 'LEAST_S', 0.0)
  fail_saves(range(3, 10**6))
  run = tiny_run.Run(tmp_path, retry_seconds=2.0)
  with pytest.raises(OSError, match='of step 8 .*Input/output error') as caught:
    run.train(8)
  assert 'steps [2, 4] are whole; 4 steps (' in str(caught.value)


def test_a_stopped_run_tries_to_save_until_it_can(
  tmp_path, fail_saves, monkeypatch
):
  monkeypatch.setattr('cdm.training.loop.time.sleep', lambda seconds: None)
  fail_saves({2, 3})
  batches = tiny_run.Batches(before=signal_at(4))
  run = tiny_run.Run(tmp_path, batches=batches, retry_seconds=600.0)
  outcome = run.train(8)
  assert outcome.ending is exit_codes.PREEMPTED
  assert reader.complete_steps(tmp_path)[-1] == outcome.step < 8
