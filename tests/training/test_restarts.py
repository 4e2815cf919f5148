"""A run that is started again in vain ends for good."""

import json

import pytest

from cdm.distributed import exit_codes, rendezvous
from cdm.training import restarts

LIMITS = restarts.Limits(in_vain=3, per_hour=6, in_all=12)


class Clock:
  def __init__(self):
    self.now = 1e9

  def __call__(self):
    return self.now


@pytest.fixture
def run(tmp_path):
  """-> run(step, ending, after): a start at a checkpoint, and how it ended."""
  clock = Clock()

  def start(step=0, ending=None, *, after=1000.0, limits=LIMITS, **more):
    clock.now += after
    counted = restarts.Restarts(tmp_path, limits, clock=clock, **more)
    try:
      counted.begin(step)
    except restarts.TooManyRestarts as error:
      counted.end(exit_codes.classify(error))
      raise
    if ending is not None:
      counted.end(ending)
    return counted

  return start


def test_a_run_that_fails_at_one_step_for_ever_ends(run, tmp_path):
  """Killed ones say nothing of their end, and count all the same."""
  for ending in (None, exit_codes.NO_PROGRESS, exit_codes.FAULT):
    run(8, ending)
  with pytest.raises(restarts.TooManyRestarts) as caught:
    run(8)
  text = str(caught.value)
  assert 'started 3 times in a row without a newer checkpoint' in text
  assert 'step 8' in text and str(tmp_path / restarts.FILE) in text
  assert '--config.train.max_restarts_in_vain=3' in text and '\n' not in text
  ending = exit_codes.classify(caught.value)
  assert ending is exit_codes.TOO_MANY_RESTARTS and ending.code == 2
  # A person, who has looked, may start it again.
  run(8)


def test_a_newer_checkpoint_begins_the_count_anew(run):
  for step in (0, 0, 4, 4, 9, 9):
    run(step, after=1e4)
  run(9, after=1e4)  # the third in a row
  with pytest.raises(restarts.TooManyRestarts, match='in a row'):
    run(9, after=1e4)


def test_a_rollback_is_progress_up_to_the_step_it_leaves(run):
  for step in (10, 20, 30, 10, 10):
    run(step, after=1e4)


def test_a_run_that_is_preempted_before_its_first_step_is_not_in_vain(run):
  for _ in range(5):
    run(8, exit_codes.PREEMPTED)


def test_too_many_starts_within_an_hour_end_a_run_that_gets_on(run):
  for step in range(6):
    run(step, after=60)
  with pytest.raises(restarts.TooManyRestarts, match='6 times within an hour'):
    run(6, after=60)


def test_starts_are_counted_in_all(run):
  for step in range(12):
    run(step, after=1e5)
  with pytest.raises(restarts.TooManyRestarts, match='12 times since a person'):
    run(12, after=1e5)


@pytest.mark.parametrize('after', [-1e6, 1e6])
def test_a_clock_that_jumps_ends_no_run(run, after):
  for step in range(5):
    run(step, after=60)
  for step in range(5, 10):
    run(step, after=60 if step > 5 else after)


@pytest.mark.parametrize(
  'ending', [exit_codes.COMPLETE, exit_codes.INTERRUPTED, exit_codes.BAD_INPUT]
)
def test_after_an_end_that_a_person_sees_the_count_begins_anew(run, ending):
  for _ in range(3):
    run(8)
    run(8)
    run(8, ending)


@pytest.mark.parametrize(
  'ending',
  [exit_codes.NOT_FINITE, exit_codes.DATA_ERROR, exit_codes.OUT_OF_MEMORY],
)
def test_a_diverged_run_that_a_platform_starts_for_ever_ends(run, ending):
  """A platform may see the 137 of a host that it killed, not the 3 of one."""
  for _ in range(3):
    run(8, ending)
  with pytest.raises(restarts.TooManyRestarts, match='in a row'):
    run(8, ending)
  # A person's remedy leads to a newer checkpoint, which counts anew.
  run(8, ending)
  run(12)


def test_each_start_tells_why_there_was_one(run, tmp_path):
  run(0, exit_codes.NOT_FINITE)
  run(8, exit_codes.PREEMPTED)
  run(16)
  run(24)
  lines = map(
    json.loads,
    (tmp_path / restarts.FILE).read_text(encoding='utf-8').splitlines(),
  )
  starts = [line for line in lines if 'step' in line]
  assert [start.get('reason') for start in starts] == [
    None,
    'not finite',
    'preempted',
    'killed, or its machine was lost',
  ]


def test_zero_sets_no_limit(run):
  for _ in range(30):
    run(8, after=1, limits=restarts.Limits(0, 0, 0))


def test_a_damaged_record_ends_no_run_and_is_counted_on(run, tmp_path):
  for _ in range(2):
    run(8)
  path = tmp_path / restarts.FILE
  path.write_bytes(b'\x00\xff{"time"\n' + path.read_bytes() + b'{"time": 1')
  run(8)
  with pytest.raises(restarts.TooManyRestarts):
    run(8)


@pytest.mark.parametrize('before', [0, 1])
def test_a_start_that_is_refused_leaves_the_record_as_it_was(
  run, tmp_path, before
):
  path = tmp_path / restarts.FILE
  for _ in range(before):
    run(8)
  held = path.read_bytes() if before else None
  run(8).forget()
  assert (path.read_bytes() if path.exists() else None) == held


def test_a_newer_step_is_that_of_the_same_start(run):
  """As of copies on local disks, which are found after the checkpoint."""
  for step in (8, 9, 10, 11):
    run(8).begin(step)
  for _ in range(2):
    run(11)
  with pytest.raises(restarts.TooManyRestarts, match='step 11'):
    run(11)


def test_only_process_0_counts(run, tmp_path):
  run(8, exit_codes.FAULT, active=False)
  assert not (tmp_path / restarts.FILE).exists()


def test_processes_that_had_found_each_other_are_started_again(run, tmp_path):
  """At a first start, an address is wrong, and would be wrong again."""
  error = rendezvous.PeersNotFound('Process 0 did not answer at a:1.')
  assert restarts.explain(error, tmp_path) is error
  assert exit_codes.classify(error) is exit_codes.NEVER_JOINED
  run(8)
  lost = restarts.explain(error, tmp_path)
  assert exit_codes.classify(lost) is exit_codes.LOST_PEERS
  assert str(lost).startswith('Process 0 did not answer at a:1. They found')
