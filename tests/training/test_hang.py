"""A run that hangs says where every thread stands and ends, whatever hangs."""

import subprocess
import sys
import textwrap

from cdm.distributed import exit_codes
from cdm.training import hang, run_config, watchdog

HANGING = """
import pathlib, sys, threading, time
from cdm.training import hang, trainer, watchdog
from cdm.reporting import crash_reports

def read_that_never_returns():
  {read}

def record(text, stacks):
  crash_reports.write_crash_report(sys.argv[1], 'no-progress', stacks)
  {record}

watch = watchdog.Watchdog(hang=watchdog.Hang(
  lambda text: hang.end_process(text, record, part_s=0.5), 0.2
))
with watch:
  for step in range(4):
    watch.enter(watchdog.DATA, step)
  read_that_never_returns()
"""


def ended(workdir, *, read='time.sleep(3600)', record=''):
  """-> (the finished process, texts of its crash reports)."""
  code = textwrap.dedent(HANGING).format(read=read, record=record)
  done = subprocess.run(
    [sys.executable, '-c', code, str(workdir)],
    capture_output=True,
    text=True,
    timeout=300,
    encoding='utf-8',
  )
  reports = (workdir / 'failures').glob('*-no-progress.txt')
  return done, [path.read_text(encoding='utf-8') for path in reports]


def test_a_read_that_never_returns_ends_with_a_code_that_starts_again(tmp_path):
  # Of a pipe that nobody writes, as of a server that never answers.
  read = 'import os; os.read(os.pipe()[0], 1)'
  done, (report,) = ended(tmp_path, read=read)
  assert done.returncode == exit_codes.NO_PROGRESS.code == 75
  told = 'cdm: no progress: watchdog: waiting for data for '
  assert told in done.stderr and 'in read_that_never_returns' in done.stderr
  assert 'in read_that_never_returns' in report and 'MainThread' in report


def test_a_storage_that_hangs_does_not_keep_the_report_from_ending(tmp_path):
  done, _ = ended(tmp_path, record='time.sleep(3600)')
  assert done.returncode == exit_codes.NO_PROGRESS.code


def test_what_is_tried_again_has_its_time_before_it_is_a_hang(monkeypatch):
  schedule = run_config.Run(
    batch_size=1, num_steps=1, log_every_steps=1, save_every_steps=1
  )
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '3600')
  found = hang.limits(schedule, processes=1, end=print)
  assert found.seconds == 900.0
  for phase in (watchdog.DATA, watchdog.LOG, watchdog.SAVE):
    assert found.own[phase] >= 2 * 3600
  grown = hang.limits(schedule, processes=1024, end=print)
  assert grown.own[watchdog.SAVE] > found.own[watchdog.SAVE]
  assert all(seconds >= 900.0 for seconds in found.own.values())
