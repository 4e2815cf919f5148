"""Reports phases of a run (data, step, save) that take much longer than usual.

The loop enters a phase with one assignment, whose cost is not measurable, and a
background thread compares the time spent in the phase with the median of that
phase. The watchdog reports and never ends a run: a hang may be a slow disk, and
a person who reads the stacks can judge better.
"""

from __future__ import annotations

import collections
import statistics
import threading
import time
from collections.abc import Callable

DATA = 'waiting for data'
STEP = 'in the training step'
LOG = 'writing the log line'
SAVE = 'saving a checkpoint'
SHOW = 'drawing samples'
EVALUATE = 'evaluating'  # each evaluator has a phase of its own
RESTORE = 'going back to a checkpoint'

_MAX_DURATIONS = 64  # newest durations of each phase that are remembered
_MIN_DURATIONS = 3  # durations that a median needs


class Watchdog:
  """Compares the duration of each phase of a run with the phase's median.

  Use it as a context manager around the loop, and call `enter` at every change
  of phase.
  """

  def __init__(
    self,
    *,
    factor: float = 0.0,
    seconds: float = 60.0,
    report: Callable[[str, bool], object] | None = None,
  ):
    """Prepares to watch; the thread starts on entering the context.

    Args:
      factor: a phase is reported when it takes this many times its median; 0
        reports nothing and only adds up the seconds of every phase.
      seconds: a phase is never reported before it has taken this long. Without
        a median, as in the first step, which compiles, it may take `factor`
        times as long.
      report: callback `report(text, hangs)`, called in the watching thread;
        `hangs` is false when a phase that was reported has ended. It may be
        None only if factor is 0.
    """
    self._factor, self._floor, self._report = factor, seconds, report
    # (phase, its start, last step made), replaced as a whole by `enter`.
    self._now: tuple[str | None, float, int] = (None, time.monotonic(), 0)
    self._past = collections.defaultdict(self._empty)
    self._seconds = collections.defaultdict(float)
    self._ended = threading.Event()
    self._thread = None

  @staticmethod
  def _empty():
    return collections.deque(maxlen=_MAX_DURATIONS)

  def enter(self, phase: str | None, step: int) -> None:
    """Tells the watchdog which phase the run is in until the next call.

    Args:
      phase: one of the constants of this module; None ends the last phase and
        begins none.
      step: the last step made.
    """
    now = time.monotonic()
    before, since, _ = self._now
    self._now = (phase, now, step)
    self._past[before].append(now - since)
    self._seconds[before] += now - since

  @property
  def step(self) -> int:
    """The last step made."""
    return self._now[2]

  def seconds(self, phase: str) -> float:
    """Returns the seconds spent in a phase so far, without the current one."""
    return self._seconds[phase]

  def __enter__(self) -> Watchdog:
    if self._factor:
      self._ended.clear()
      self._thread = threading.Thread(
        target=self._watch, name='watchdog', daemon=True
      )
      self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._ended.set()
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def _watch(self):
    assert self._report is not None, 'a factor needs a report'
    reported = None
    while not self._ended.wait(min(1.0, self._floor / 4)):
      now = self._now
      if reported is not None and now is not reported:
        took = now[1] - reported[1]
        self._report(f'{_describe(reported, took)}, and then ended', False)
        reported = None
      age = time.monotonic() - now[1]
      if now[0] is None or now is reported or age < self._floor:
        continue
      # The durations are copied, because the loop appends to them in its own
      # thread meanwhile.
      past = self._past[now[0]].copy()
      limit, usual = self._factor * self._floor, 'the first of its kind'
      if len(past) >= _MIN_DURATIONS:
        median = statistics.median(past)
        limit = max(self._floor, self._factor * median)
        usual = f'the median is {median:.3g} s'
      if age >= limit:
        reported = now
        self._report(f'{_describe(now, age)}; {usual}', True)


def _describe(occurrence, seconds):
  """Returns a sentence about an occurrence, a (phase, start, step) tuple."""
  phase, _, step = occurrence
  return f'watchdog: {phase} for {seconds:.3g} s after step {step}'
