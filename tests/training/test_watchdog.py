"""What takes far longer than it did is reported, once, and never ended."""

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
