"""The best checkpoint of a run: kept, found anew, and never made up."""

import json

import pytest
from support import tiny_run

from cdm.checkpointing import reader, state_arrays
from cdm.training import best_checkpoint, hooks

METRIC = 'held_out/ema_loss'
# By step; the second 0.5 comes too late, and NaN is no value.
VALUES = {1: 0.9, 2: 0.5, 3: 0.7, 4: float('nan'), 5: 0.5, 6: 0.6, 7: 0.4}


def train(workdir, num_steps, *, fail=None, higher=False, **options):
  """Trains with an evaluation at every step, which fails at one step."""
  run = tiny_run.Run(workdir, keep=1, **options)

  def evaluate(params, ema_params, stop_asked):
    step = 1 + sum(METRIC in row for row in run.record())
    assert step != fail, 'killed'
    return {METRIC: VALUES[step]}

  def make_hooks(collaborators):
    return hooks.Hooks(
      evaluations=(hooks.Evaluator(METRIC, 1, evaluate),),
      best=best_checkpoint.BestCheckpoint(
        METRIC,
        higher_is_better=higher,
        checkpointer=collaborators.checkpointer,
        reporter=collaborators.reporter,
      ),
    )

  run.train(num_steps, save_every=3, hooks=make_hooks)


def best(folder):
  return json.loads(
    (folder / 'checkpoints' / 'best').read_text(encoding='utf-8')
  )


def test_the_best_is_kept_while_newer_ones_are_dropped(tmp_path):
  """Every evaluated step is saved, or its checkpoint could not be the best."""
  train(tmp_path, 6)
  assert best(tmp_path) == {'step': 2, 'metric': METRIC, 'value': 0.5}
  assert reader.complete_steps(tmp_path) == [2, 6]
  assert reader.resolve(tmp_path, 'best') == 2
  train(tmp_path, 7)
  assert best(tmp_path)['step'] == 7
  assert reader.complete_steps(tmp_path)[-1] == 7


def test_the_best_is_saved_once_more_if_its_checkpoint_failed(
  tmp_path, monkeypatch
):
  merge, saves = state_arrays.merge, []

  def merged(path):
    saves.append(path)
    if len(saves) == 2:  # that of step 2
      raise OSError(5, 'Input/output error')
    merge(path)

  monkeypatch.setattr(state_arrays, 'merge', merged)
  train(tmp_path, 4, retry_seconds=60.0)
  assert best(tmp_path)['step'] == 2
  assert reader.complete_steps(tmp_path)[0] == 2


def test_a_kill_within_an_evaluation_ends_with_the_same_best(tmp_path):
  with pytest.raises(AssertionError, match='killed'):
    train(tmp_path, 6, fail=5)
  assert reader.complete_steps(tmp_path) == [2, 3, 5]
  (tmp_path / 'checkpoints' / 'best').unlink()  # as if killed just before
  train(tmp_path, 6)
  assert best(tmp_path)['step'] == 2
  assert reader.complete_steps(tmp_path) == [2, 6]


def test_of_a_metric_to_be_raised_the_highest_is_the_best(tmp_path):
  train(tmp_path, 4, higher=True)
  assert best(tmp_path) == {'step': 1, 'metric': METRIC, 'value': 0.9}
  assert 1 in reader.complete_steps(tmp_path)


class Saver:
  """What `BestCheckpoint` asks of a checkpointer."""

  def __init__(self, *steps):
    self._steps, self.kept = list(steps), []

  def steps(self):
    return self._steps

  def wait(self):
    pass

  def keep_best(self, best):
    self.kept.append(best and best['step'])


@pytest.mark.parametrize(
  ('steps', 'at', 'expected'),
  [
    ((2, 4, 6), 6, 4),
    ((2, 4, 6), 3, 2),  # after a rollback to step 3
    ((2, 6), 6, 6),  # the checkpoint of step 4 is damaged
    ((1, 5), 6, None),
  ],
)
def test_on_resuming_it_is_the_best_that_is_there(steps, at, expected):
  class Record:
    def rows(self, since=0):
      values = {2: 0.9, 4: 0.3, 5: None, 6: 0.5}
      return [{'step': s, METRIC: v} for s, v in values.items()] + [
        {'step': 6, 'loss': 0.1}
      ]

  saver = Saver(*steps)
  found = best_checkpoint.BestCheckpoint(
    METRIC, higher_is_better=False, checkpointer=saver, reporter=Record()
  )
  found.resume(at)
  assert saver.kept == [expected]
