"""A run that diverges goes back, leaves out that data, and goes on."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run

from cdm.checkpointing import reader
from cdm.data.files import damaged_file
from cdm.distributed import exit_codes
from cdm.training import rollback, running_metrics
from cdm.training.preemption import Stop

STEPS = 9  # checkpoints at the even ones, lines at every third


class Without(tiny_run.Batches):
  """Data that never held some of the batches."""

  def __init__(self, *left_out):
    super().__init__()
    self._left_out = left_out

  def __next__(self):
    while self._state['next'] in self._left_out:
      self._state['next'] += 1
    return super().__next__()


def spoilt_by(*bad, stop=None, stop_at=None, fail_at=None):
  """A step that some batches spoil: parameters and loss become NaN.

  Args:
    *bad: numbers of the batches.
    stop, stop_at: a Stop, and after how many calls to ask it.
    fail_at: at which call to fail, as if the process were killed there.
  """
  images = {tiny_run.batch_at(b)['image'].tobytes() for b in bad}
  calls = []

  def step(state, batch):
    calls.append(0)
    if len(calls) == fail_at:
      raise KeyboardInterrupt
    if len(calls) == stop_at:
      stop.signum = signal.SIGTERM
    image = np.asarray(batch['image']).tobytes()
    state, scalars = tiny_run.step()(state, batch)
    if image in images:
      nan = jax.tree.map(lambda p: p * jnp.nan, state.params)
      state = state.replace(params=nan)
      scalars = scalars | {'loss': scalars['loss'] * jnp.nan}
    return state, scalars

  return step


def truth(workdir, *left_out):
  """-> (state, record) of a run whose data never held those batches."""
  run = tiny_run.Run(workdir, batches=Without(*left_out))
  return run.train(STEPS).state, run.record()


def made(workdir):
  """-> [(to, bad)] as recorded on disk."""
  entries = json.loads((workdir / rollback.FILE).read_text(encoding='utf-8'))
  return [(entry['to'], entry['bad']) for entry in entries]


@pytest.fixture(scope='module')
def without_5(tmp_path_factory):
  """Batch 5 makes step 6; the checkpoint before is 4: 4 and 5 are lost."""
  return truth(tmp_path_factory.mktemp('without'), 4, 5)


def assert_is(outcome, run, expected):
  tiny_run.assert_same(outcome.state, expected[0])
  assert run.record() == expected[1]


def test_the_run_is_as_if_the_data_had_not_been_there(
  tmp_path, without_5, capfd
):
  run = tiny_run.Run(tmp_path)
  outcome = run.train(STEPS, step_fn=spoilt_by(5), rollbacks=1)
  assert_is(outcome, run, without_5)
  assert made(tmp_path) == [(4, 6)]
  assert outcome.exit_code == 0


def test_two_bad_batches_behind_one_checkpoint(tmp_path, without_5):
  run = tiny_run.Run(tmp_path / 'a')
  outcome = run.train(STEPS, step_fn=spoilt_by(5, 6), rollbacks=2)
  assert_is(outcome, run, truth(tmp_path / 'b', 4, 5, 6))
  assert made(tmp_path / 'a') == [(4, 6), (4, 5)]


@pytest.mark.parametrize('fail_at', [6, 8])
def test_killed_before_or_after_the_rollback_it_ends_the_same(
  tmp_path, without_5, fail_at
):
  """Call 6 is the bad step; 7 and 8 follow the rollback, 8 before a save."""
  run = tiny_run.Run(tmp_path)
  with pytest.raises(KeyboardInterrupt):
    run.train(STEPS, step_fn=spoilt_by(5, fail_at=fail_at), rollbacks=1)
  again = tiny_run.Run(tmp_path)
  outcome = again.train(STEPS, step_fn=spoilt_by(5), rollbacks=1)
  assert_is(outcome, again, without_5)
  assert made(tmp_path) == [(4, 6)]  # counted once


@pytest.mark.parametrize('stop_at', [5, 7])
def test_stopped_in_between_it_ends_the_same(tmp_path, without_5, stop_at):
  """A stop saves at step 5, from where the whole run never goes back."""
  stop = Stop()
  run = tiny_run.Run(tmp_path, keep=1)
  step = spoilt_by(5, stop=stop, stop_at=stop_at)
  outcome = run.train(STEPS, step_fn=step, stop=stop, rollbacks=1)
  assert outcome.ending is exit_codes.PREEMPTED
  again = tiny_run.Run(tmp_path, keep=1)
  outcome = again.train(STEPS, step_fn=spoilt_by(5), rollbacks=1)
  assert_is(outcome, again, without_5)


def test_after_so_many_it_stops_with_its_own_code(tmp_path):
  with pytest.raises(
    running_metrics.Diverged, match='loss is nan at step 8'
  ) as caught:
    tiny_run.Run(tmp_path).train(20, step_fn=spoilt_by(5, 9), rollbacks=1)
  assert exit_codes.classify(caught.value).code == 3
  assert made(tmp_path) == [(4, 6)]
  # One more is allowed now, and nothing else has changed.
  outcome = tiny_run.Run(tmp_path).train(10, step_fn=spoilt_by(9), rollbacks=2)
  assert outcome.step == 10
  assert made(tmp_path) == [(4, 6), (6, 8)]


def test_before_the_first_checkpoint_there_is_nothing_to_go_back_to(tmp_path):
  with pytest.raises(
    running_metrics.Diverged, match='no checkpoint was saved before'
  ):
    tiny_run.Run(tmp_path).train(9, step_fn=spoilt_by(1), rollbacks=3)
  assert not (tmp_path / rollback.FILE).exists()


def spiking_at(number):
  """A step whose gradient norm is fifty times what it is, at one batch."""
  image = tiny_run.batch_at(number)['image'].tobytes()

  def step(state, batch):
    spikes = np.asarray(batch['image']).tobytes() == image
    state, scalars = tiny_run.step()(state, batch)
    norm = scalars['grad_norm'] * (50 if spikes else 1)
    return state, scalars | {'grad_norm': norm}

  return step


def test_a_spike_is_noticed_by_what_was_usual_before_a_restart(tmp_path):
  """The second start makes too few steps to know by itself."""
  tiny_run.Run(tmp_path).train(14, step_fn=spiking_at(18), spike_factor=10.0)
  message = r'grad_norm is \S+ at step 19, where \S+ was usual'
  with pytest.raises(running_metrics.Diverged, match=message):
    tiny_run.Run(tmp_path).train(24, step_fn=spiking_at(18), spike_factor=10.0)
  assert reader.complete_steps(tmp_path)[-1] == 18
  outcome = tiny_run.Run(tmp_path).train(
    24, step_fn=spiking_at(18), spike_factor=10.0, rollbacks=1
  )
  assert outcome.step == 24
  assert made(tmp_path) == [(18, 19)]


def test_what_is_usual_takes_some_steps(tmp_path):
  outcome = tiny_run.Run(tmp_path).train(
    12, step_fn=spiking_at(8), spike_factor=10.0
  )
  assert outcome.step == 12


def test_rollbacks_that_are_yet_to_be_made_are_forgotten(tmp_path):
  """Where an older checkpoint is taken up, or another config."""
  made = rollback.Rollbacks(tmp_path, limit=9)
  for to in (4, 4, 8):
    made.add(to=to, diverged_step=to + 1, why='', position={'next': 10 * to})
  again = rollback.Rollbacks(tmp_path, limit=3)
  assert not again.permitted()
  assert again.position(8) == {'next': 80}
  again.resume(4)
  assert again.permitted() and again.position(8) is None
  assert len(rollback.Rollbacks(tmp_path).made) == 2


def test_a_broken_list_is_refused(tmp_path):
  (tmp_path / rollback.FILE).write_text('{"to"', encoding='utf-8')
  with pytest.raises(ValueError, match='rollbacks.json is not a list of roll'):
    rollback.Rollbacks(tmp_path)


@pytest.mark.parametrize(
  'text',
  ['{"to"', '{}', '[{"to": 1}]', '[{"to": "1", "bad": 2, "why": ""}]'],
)
def test_a_damaged_record_of_rollbacks_is_a_data_error(tmp_path, text):
  (tmp_path / rollback.FILE).write_text(text, encoding='utf-8')
  with pytest.raises(damaged_file.DamagedFile, match='not a list of rollbacks'):
    rollback.Rollbacks(tmp_path)
