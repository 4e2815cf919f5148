"""What takes far longer than it did is reported, once; a hang is ended."""

import time

import pytest
from support import tiny_run

from cdm.training import watchdog


def watched(reports, **fields):
  fields = {'factor': 3.0, 'seconds': 0.2} | fields
  return watchdog.Watchdog(
    report=lambda text, hangs: reports.append((text, hangs)), **fields
  )


def wait_for(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    time.sleep(0.01)


def test_a_hang_is_told_once_with_what_it_waits_for_and_that_it_passed():
  reports = []
  with watched(reports) as watch:
    for step in range(5):
      watch.enter(watchdog.DATA, step)
      watch.enter(watchdog.STEP, step)
    watch.enter(watchdog.DATA, 5)
    wait_for(lambda: reports)
    time.sleep(0.3)  # long enough to tell it again
    assert len(reports) == 1
    watch.enter(watchdog.STEP, 5)
    wait_for(lambda: len(reports) > 1)
  (hang, stuck), (passed, gone) = reports
  assert hang.startswith('watchdog: waiting for data for ')
  assert 'after step 5; the median is' in hang and stuck
  assert passed.endswith('and then ended') and not gone


def test_the_first_of_its_kind_is_given_more_time():
  """Compiling is no hang: nothing is told until factor times the floor."""
  reports = []
  with watched(reports, factor=4.0, seconds=0.2) as watch:
    began = time.monotonic()
    watch.enter(watchdog.STEP, 0)
    wait_for(lambda: reports)
    assert time.monotonic() - began >= 0.8
  assert 'the first of its kind' in reports[0][0]


def test_what_is_always_slow_is_no_hang():
  reports = []
  with watched(reports, factor=50.0, seconds=0.05) as watch:
    for step in range(8):
      watch.enter(watchdog.SAVE, step)
      time.sleep(0.1)
  assert reports == []


def test_seconds_add_up_by_phase():
  watch = watchdog.Watchdog()
  with watch:
    watch.enter(watchdog.STEP, 0)
    time.sleep(0.05)
    watch.enter(watchdog.DATA, 1)
    watch.enter(watchdog.STEP, 1)
    time.sleep(0.05)
    watch.enter(None, 2)
  assert watch.seconds(watchdog.STEP) == pytest.approx(0.1, abs=0.09)
  assert watch.seconds(watchdog.STEP) >= 0.1
  assert watch.step == 2


def test_a_run_that_hangs_for_a_while_is_reported_and_completed(tmp_path):
  reports = []

  def hang(index):
    if index == 6:
      wait_for(lambda: any('waiting for data' in t for t, _ in reports))

  run = tiny_run.Run(tmp_path, batches=tiny_run.Batches(before=hang))
  outcome = run.train(8, watch=watched(reports, seconds=0.4))
  assert outcome.step == 8
  assert [t for t, hangs in reports if hangs and 'for data' in t]


def ending(ends, seconds, **fields):
  """-> a watchdog that reports nothing, and notes that it would end a run."""
  hang = watchdog.Hang(lambda text: ends.append(text), seconds, **fields)
  return watchdog.Watchdog(hang=hang)


def test_a_step_that_never_ends_ends_the_run_once():
  ends = []
  with ending(ends, 0.3) as watch:
    for step in range(4):
      watch.enter(watchdog.DATA, step)
      watch.enter(watchdog.STEP, step)
    assert not watch.hangs()
    wait_for(lambda: ends)
    assert watch.hangs()
    time.sleep(0.3)
  (text,) = ends
  assert text.startswith('watchdog: in the training step for ')
  assert text.endswith('after step 3; the run hangs and is ended')


@pytest.mark.parametrize(
  ('phase', 'before', 'own', 'most'),
  [
    (watchdog.STEP, 0, {}, watchdog.FIRST_FACTOR),  # The first one compiles.
    (watchdog.STEP, 3, {}, 1),
    (watchdog.SAVE, 3, {watchdog.SAVE: 2.5}, 2.5),
    ('evaluating fid', 3, {watchdog.EVALUATE: 7}, 7),
  ],
)
def test_every_phase_has_its_limit(phase, before, own, most):
  """In seconds, as the watchdog says it: nothing is waited for."""
  watch = ending([], 1.0, own=own)
  for step in range(before):
    watch.enter(phase, step)
    watch.enter(None, step)
  watch.enter(phase, before)
  assert watch._most() == most


def test_the_limit_follows_from_the_runs_own_step_time(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(watchdog.time, 'monotonic', lambda: now[0])
  watch = ending([], 900.0, factor=20.0)
  for step in range(8):
    watch.enter(watchdog.STEP, step)
    now[0] += 300.0
  watch.enter(watchdog.DATA, 8)
  watch.enter(watchdog.STEP, 8)
  now[0] += 5999.0
  assert not watch.hangs()
  now[0] += 1.0
  assert watch.hangs()


def test_an_evaluation_that_gets_on_is_no_hang():
  ends = []
  with ending(ends, 0.1, own={watchdog.EVALUATE: 0.3}) as watch:
    for _ in range(4):
      watch.enter('evaluating fid', 1)
    for _ in range(8):
      time.sleep(0.1)
      watch.show_life()
    assert not ends
    wait_for(lambda: ends)
  assert ends


def test_time_in_which_the_process_was_stopped_does_not_count(monkeypatch):
  """Ctrl-Z and fg, or a machine that was suspended."""
  monkeypatch.setattr(watchdog, '_STOPPED_S', 0.2)
  ends, watch = [], ending([], 0.4)

  class Slow:
    """A wait during which the process was stopped for half a second."""

    def __init__(self):
      self.times = 0

    def wait(self, _):
      self.times += 1
      time.sleep(0.5 if self.times == 1 else 0.01)
      return self.times == 3

  watch._hang = watch._hang._replace(end=ends.append)
  for step in range(4):
    watch.enter(watchdog.STEP, step)
  watch._ended = Slow()
  watch._watch()
  assert not ends


def test_contexts_inside_each_other_share_one_thread():
  ends = []
  with ending(ends, 0.2) as watch:
    with watch:
      watch.enter(watchdog.STEP, 1)
    for step in range(4):
      watch.enter(watchdog.DATA, step)
    wait_for(lambda: ends)
  assert len(ends) == 1


def test_what_comes_after_the_run_is_no_hang_of_it():
  """As testing a classifier, for hours, after its training."""
  with ending([], 0.02) as watch:
    for step in range(4):
      watch.enter(watchdog.END, step)
      watch.show_life()
  time.sleep(0.05)
  assert not watch.hangs()


def test_zero_seconds_end_nothing():
  watch = ending([], 0.0)
  with watch:
    watch.enter(watchdog.STEP, 1)
    assert watch._thread is None and not watch.hangs()
