"""Says where every thread of a slow run stands, and ends one that hangs.

Nothing may be waited for without a limit at such an end: the storage may be
what hangs, and so may the store through which the processes tell each other.
"""

from __future__ import annotations

import os
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cdm.data.files import storage_retry
from cdm.distributed import (
  collectives,
  exit_codes,
  folder_lock,
  peer_monitor,
  timeouts,
)
from cdm.reporting import crash_reports
from cdm.training import watchdog

if TYPE_CHECKING:
  from cdm.training.run_config import Run

# How long each part of the end may take.
PART_S = 15.0


def limits(
  schedule: Run, *, processes: int, end: Callable[[str], object]
) -> watchdog.Hang:
  """Returns what counts as a hang of a run.

  Args:
    schedule: the section `train`.
    processes: number of processes of the run.
    end: ends the process, see `end_process`.
  """
  seconds = schedule.watchdog_end_seconds
  rare = watchdog.FIRST_FACTOR * seconds
  save, close = (
    timeouts.seconds(each, processes=processes)
    for each in (timeouts.SAVE, timeouts.CLOSE)
  )
  # What is tried again for a while must have had that time before.
  patience = 2 * storage_retry.patience()
  own = {
    watchdog.DATA: patience,
    watchdog.LOG: patience + save,  # After a divergence it waits for a save.
    watchdog.SAVE: patience + 2 * save,
    watchdog.START: rare,
    watchdog.RESTORE: rare,
    watchdog.SHOW: rare,
    watchdog.EVALUATE: rare,
    watchdog.END: close + 2 * save,
  }
  return watchdog.Hang(
    end=end,
    seconds=seconds,
    factor=schedule.watchdog_end_factor,
    own={phase: max(seconds, least) for phase, least in own.items()},
  )


def report_slow_phase(
  say: Callable[[str], object], workdir: pathlib.Path, text: str, hangs: bool
) -> None:
  """Prints what the watchdog reports, with all stacks if something hangs.

  Args:
    say: prints the text.
    workdir: process 0 also writes a crash report here if something hangs.
    text: the report.
    hangs: false if the report says that a hang has ended.
  """
  if not hangs:
    say(text)
    return
  stacks = crash_reports.stacks()
  path = None
  if collectives.is_first():
    path = crash_reports.write_crash_report(
      workdir, 'watchdog', f'{text}\n\n{stacks}'
    )
  say(f'{text}. Stacks of all threads{f" ({path})" if path else ""}:')
  print(stacks, file=sys.stderr, flush=True)


def end_process(
  text: str, record: Callable[[str, str], object], *, part_s: float = PART_S
) -> None:
  """Ends this process with `exit_codes.NO_PROGRESS`. Never returns.

  Args:
    text: what hangs, as a sentence.
    record: `record(text, stacks)` writes the records of the run.
    part_s: seconds that each part of the end may take.
  """
  ending = exit_codes.NO_PROGRESS
  stacks = crash_reports.stacks()
  line = f'cdm: {ending.kind}: {text}. Stacks of all threads:\n{stacks}'
  for part in (
    # The others first, whatever else hangs here.
    lambda: peer_monitor.report(ending, text),
    lambda: print(line, file=sys.stderr, flush=True),
    lambda: record(text, stacks),
    folder_lock.release_all,
    # Process 0, which holds the store, ends last.
    lambda: peer_monitor.leave(ending, text),
  ):
    thread = threading.Thread(target=part, daemon=True)
    thread.start()
    thread.join(part_s)
  # Not sys.exit: the main thread hangs, and exit handlers would wait for it.
  os._exit(ending.code)
