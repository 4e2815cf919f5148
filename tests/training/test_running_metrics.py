"""Steps that are not finite are skipped, and the record says how many."""

import functools
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run

from cdm.training import loop, running_metrics, step
from cdm.training.preemption import Stop


class Spoilt(tiny_run.Batches):
  """Batches of which some make the loss NaN, by a label of 99."""

  def __init__(self, *bad):
    super().__init__()
    self._bad = bad

  def __next__(self):
    index = self._state['next']
    batch = super().__next__()
    if index in self._bad:
      batch['label'][0] = 99
    return batch


def loss(params, batch, *, key, train):
  losses, scalars = tiny_run.loss(params, batch, key=key, train=train)
  bad = batch['label'][:, None] == 99
  return jnp.where(bad[:, 0], jnp.nan, losses), scalars


@functools.lru_cache
def skipping():
  """-> (optimizer that skips one step in a row, its step)."""
  tx = tiny_run.adam(skip_nonfinite=1)
  return tx, step.make_step(loss, tx, mesh=tiny_run.mesh(), ema_decay=0.99)


def train(workdir, *bad, stop_at=None, num_steps=8):
  """-> (the run, its outcome); stopped after `stop_at` steps of this start."""
  tx, update = skipping()
  run = tiny_run.Run(workdir, batches=Spoilt(*bad), tx=tx)
  stop, made = Stop(), []

  def counted(state, batch):
    made.append(0)
    if len(made) == stop_at:
      stop.signum = signal.SIGTERM
    return update(state, batch)

  return run, run.train(num_steps, step_fn=counted, stop=stop)


def test_skipped_steps_are_counted_in_each_line_across_a_restart(tmp_path):
  whole, outcome = train(tmp_path / 'whole', 1, 4, 6)
  assert [row['skipped_steps'] for row in whole.record()] == [1, 1, 1]
  assert all(np.isfinite(row['loss']) for row in whole.record())
  train(tmp_path / 'parts', 1, 4, 6, stop_at=2)
  train(tmp_path / 'parts', 1, 4, 6, stop_at=3)
  parts, resumed = train(tmp_path / 'parts', 1, 4, 6)
  assert parts.record() == whole.record()
  tiny_run.assert_same(resumed.state, outcome.state)


@pytest.mark.parametrize('stop_at', [None, 4])
def test_one_step_more_in_a_row_is_divergence_even_after_a_restart(
  tmp_path, stop_at
):
  if stop_at:  # between the two
    train(tmp_path, 3, 4, stop_at=stop_at)
  with pytest.raises(
    running_metrics.Diverged,
    match='loss is nan at step 5, after 1 skipped in a row .*checkpoint is st',
  ):
    train(tmp_path, 3, 4)


def test_a_line_whose_steps_were_all_skipped_has_no_loss(tmp_path):
  tx, update = skipping()
  run = tiny_run.Run(tmp_path, batches=Spoilt(0, 2), tx=tx)
  outcome = run.train(3, step_fn=update, log_every=1)
  assert isinstance(outcome, loop.Outcome)
  rows = run.record()
  assert [row['skipped_steps'] for row in rows] == [1, 0, 1]
  assert ['loss' in row for row in rows] == [False, True, False]
