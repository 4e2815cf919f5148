"""Steps that are not finite are skipped, and the record says how many."""

import functools
import signal
import time
import types

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


def after(norms, *, loss=1.0, saved=None, **limits):
  """Metrics that have taken one step for each of these gradient norms."""
  metrics = running_metrics.RunningMetrics(saved, **limits)
  for i, norm in enumerate(norms):
    scalars = {'loss': jnp.float32(loss), 'grad_norm': jnp.float32(norm)}
    metrics.add(i + 1, scalars, {'position': i})
  metrics.drain()
  return metrics


class Saver:
  """A checkpointer that has saved this step."""

  def __init__(self, step=None):
    self._step = step

  def wait(self):
    pass

  def latest_step(self):
    return self._step


USUAL = [1.0, 3.0] * 8  # sixteen steps, whose median is 2


@pytest.mark.parametrize(
  ('norms', 'factor', 'diverges'),
  [
    ([*USUAL, 8.1], 4.0, True),
    ([*USUAL, 8.0], 4.0, False),
    ([*USUAL, 1e9], 0.0, False),
    ([*USUAL[1:], 1e9], 4.0, False),  # one step too early
    ([*USUAL, *[100.0] * 64, 100.0], 200.0, False),
    # The oldest norms are forgotten, and 100 has become usual.
    ([*USUAL, *[100.0] * 64, 401.0], 200.0, False),
    ([*USUAL, *[2.0] * 64, *[100.0] * 3, 401.0], 200.0, True),
  ],
)
def test_a_spike_is_a_norm_far_above_the_median_of_recent_ones(
  norms, factor, diverges
):
  metrics = after(norms, spike_factor=factor)
  if not diverges:
    metrics.check(Saver(), len(norms))
    return
  with pytest.raises(
    running_metrics.Diverged,
    match=rf'grad_norm is {norms[-1]:.4g} at step {len(norms)}, where 2 was us',
  ) as caught:
    metrics.check(Saver(7), len(norms))
  assert 'the last good checkpoint is step 7' in str(caught.value)
  found = caught.value.diverged_step
  assert (found.step, found.position) == (
    len(norms),
    {'position': len(norms) - 1},
  )


def test_norms_that_a_checkpoint_stored_count_as_recent():
  saved = after(USUAL).to_json()
  metrics = after([9.0], saved=saved, spike_factor=4.0)
  assert saved['grad_norms'] == []  # without a factor none are kept
  metrics.check(Saver(), 1)
  saved = after(USUAL, spike_factor=4.0).to_json()
  assert saved['grad_norms'] == USUAL
  first = running_metrics.RunningMetrics(spike_factor=4.0)
  again = first.continued(saved)
  again.add(17, {'loss': 1.0, 'grad_norm': 9.0})
  again.drain()
  with pytest.raises(running_metrics.Diverged, match='no checkpoint was saved'):
    again.check(Saver(), 17)


@pytest.mark.parametrize('name', ['loss', 'grad_norm'])
def test_the_first_number_that_is_not_finite_is_the_one_that_is_told(name):
  metrics = running_metrics.RunningMetrics()
  for step_made, value in enumerate((1.0, np.inf, np.nan, 1.0), 1):
    metrics.add(step_made, {'loss': 1.0, 'grad_norm': 1.0} | {name: value})
  metrics.drain()
  with pytest.raises(running_metrics.Diverged) as caught:
    metrics.check(Saver(0), 4)
  assert str(caught.value).startswith(
    f'{name} is inf at step 2 (found at step 4: steps 2 to 4 are lost); the '
    'last good checkpoint is step 0.'
  )


def test_a_finite_step_between_them_makes_skipped_steps_no_divergence():
  metrics = running_metrics.RunningMetrics(skip_nonfinite=1)
  for step_made, value in enumerate((np.nan, 1.0, np.nan, 1.0), 1):
    metrics.add(step_made, {'loss': value, 'grad_norm': 1.0})
  metrics.drain()
  metrics.check(Saver(), 4)
  assert metrics.to_json()['skipped_in_a_row'] == 0


def test_a_line_has_means_sums_of_counts_and_the_latest_of_some():
  metrics = running_metrics.RunningMetrics()
  for i, skipped in enumerate((0, 1, 1, 0)):
    metrics.add(
      i,
      {
        'loss': 10.0 if skipped else 1.0 + i,
        'grad_norm': 1.0,
        'learning_rate': 0.5 + i,
        'skipped_steps': float(skipped),
        'bin': step.Ratio(i, i),  # empty in the first step
        'empty': step.Ratio(0.0, 0.0),
      },
    )
  metrics.drain(leave=1)
  assert metrics.means()['learning_rate'] == 2.5
  metrics.drain()
  expected = {
    'loss': 2.5,
    'grad_norm': 1.0,
    'learning_rate': 3.5,
    'skipped_steps': 2.0,
    'bin': 1.0,
  }
  assert metrics.means() == expected
  assert running_metrics.RunningMetrics(metrics.to_json()).means() == expected
  metrics.clear()
  assert metrics.means() == {}


def test_the_loss_of_a_progress_display_is_fetched_seldom(monkeypatch):
  now = [100.0]
  clock = types.SimpleNamespace(monotonic=lambda: now[0], time=time.time)
  monkeypatch.setattr(running_metrics, 'time', clock)
  metrics = running_metrics.RunningMetrics()

  def add(count):
    for _ in range(count):
      metrics.add(1, {'loss': jnp.float32(2.0), 'grad_norm': jnp.float32(1.0)})

  add(1)
  now[0] += 0.4
  assert metrics.latest_loss() is None  # too soon
  now[0] += 0.1
  assert metrics.latest_loss() is None  # all steps may be in flight
  add(4)
  now[0] += 0.5
  assert metrics.latest_loss() == 2.0
  add(59)
  assert metrics.latest_loss() is None  # 63 wait
  add(1)
  assert metrics.latest_loss() == 2.0
  metrics.drain()
  metrics.clear()
  now[0] += 1
  assert metrics.latest_loss() == 2.0  # that of the last line
