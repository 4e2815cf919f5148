"""The state is compared before it is saved, and saved when that is due."""

from unittest import mock

import pytest

from cdm.distributed import replica_comparison
from cdm.training import run_config, state_saver
from cdm.training.state_saver import COPY, SAVE


class Made:
  """Collaborators that record what is done with them, in order."""

  def __init__(self, *, copies=True, comparison=True, retry=False):
    self.calls = calls = []
    self.checkpointer = mock.Mock()
    self.checkpointer.retry_is_due = lambda: retry
    self.checkpointer.save = lambda step, state, **_: calls.append((SAVE, step))
    self.local_copies = self.comparison = self.snapshots = None
    if copies:
      self.local_copies = mock.Mock()
      self.local_copies.write = lambda step, state, **_: calls.append(
        (COPY, step)
      )
    if comparison:
      self.comparison = mock.Mock()
      self.comparison.start = lambda state, step: calls.append(('start', step))


def saver(made, **fields):
  fields = {
    'batch_size': 8,
    'num_steps': 20,
    'log_every_steps': 2,
    'save_every_steps': 5,
    'compare_every_steps': 4,
  } | fields
  return state_saver.StateSaver(made, run_config.Run(**fields))


def due(made, **fields):
  """-> {step: what is due after it}, of the 20 steps."""
  one = saver(made, **fields)
  found = {}
  for step in range(1, 21):
    kind = one.due(step)
    if kind is not None:
      one.write(kind, step, None, data_state={}, window={})
      found[step] = kind
  return found


def test_checkpoints_are_due_at_their_steps():
  assert due(Made()) == {5: SAVE, 10: SAVE, 15: SAVE, 20: SAVE}


def test_a_save_that_failed_is_due_again():
  assert set(due(Made(retry=True), local_copy_every_minutes=1e-9)) == {
    *range(1, 21)
  }


def test_by_the_clock_they_are_due_at_log_lines_too():
  found = due(Made(), save_every_minutes=1e-9)
  assert sorted(found) == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
  assert set(found.values()) == {SAVE}


def test_copies_are_due_where_no_checkpoint_is():
  found = due(Made(), local_copy_every_minutes=1e-9)
  assert [step for step in found if found[step] == SAVE] == [5, 10, 15, 20]
  copied = [step for step in found if found[step] == COPY]
  assert copied == [2, 4, 6, 8, 12, 14, 16, 18]


def test_without_local_copies_none_are_due():
  found = due(Made(copies=False), local_copy_every_minutes=1e-9)
  assert set(found.values()) == {SAVE}


@pytest.mark.parametrize(
  ('every', 'expected'), [(4, [4, 8, 12, 16, 20]), (0, [])]
)
def test_the_state_is_compared_at_regular_steps(every, expected):
  made = Made()
  one = saver(made, compare_every_steps=every)
  for step in range(1, 21):
    one.compare_if_due(step, mock.Mock())
  assert [step for _, step in made.calls] == expected


def test_without_a_comparison_nothing_is_compared():
  one = saver(Made(comparison=False))
  one.start_comparison(4, None)
  one.finish_comparison()


def test_a_difference_keeps_a_run_from_saving(tmp_path):
  """The run of another test, whose devices differ after step 3."""
  from support import tiny_run

  from cdm.checkpointing import reader

  class Comparison:
    def start(self, state, step):
      self.step = step

    def check(self, state, step):
      raise AssertionError('nothing was restored')

    def finish(self):
      if getattr(self, 'step', 0) > 3:
        raise replica_comparison.ReplicasDiffer(f'after step {self.step}')

  with pytest.raises(replica_comparison.ReplicasDiffer, match='step 4'):
    tiny_run.Run(tmp_path).train(8, comparison=Comparison())
  assert reader.complete_steps(tmp_path) == [2]
