"""Reports phases of a run that take much longer than usual, and ends a hang.

The loop enters a phase with one assignment, whose cost is not measurable, and a
background thread compares the time spent in the phase with the median of that
phase. A phase that takes a few times as long as usual is reported, because it
may be a slow disk, and a person who reads the stacks can judge better. A phase
that takes so long that nobody waits for it is a hang, such as a collective that
never returns or a storage that never answers: the run is ended, so that it is
started again.

Time in which the whole process was stopped (Ctrl-Z, a suspended machine) does
not count.
"""

from __future__ import annotations

import collections
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

START = 'starting'
DATA = 'waiting for data'
STEP = 'in the training step'
LOG = 'writing the log line'
SAVE = 'saving a checkpoint'
SHOW = 'drawing samples'
EVALUATE = 'evaluating'  # each evaluator has a phase of its own
RESTORE = 'going back to a checkpoint'
END = 'ending'

# Until a phase has a median it may take this many times the seconds after which
# it is a hang: the first step compiles.
FIRST_FACTOR = 6
_MAX_DURATIONS = 64  # newest durations of each phase that are remembered
_MIN_DURATIONS = 3  # durations that a median needs
_POLL_S = 1.0
# A thread that should have looked so much earlier was stopped, and with it the
# process.
_STOPPED_S = 5.0


class Hang(NamedTuple):
  """What counts as a hang, and what then happens.

  Attributes:
    end: callback `end(text)`, called once in the watching thread; it ends the
      process.
    seconds: a phase that takes less is no hang; 0 makes none a hang.
    factor: nor is a phase that takes less than this many times its median.
    own: {phase: seconds} of phases that may take longer than `seconds`.
  """

  end: Callable[[str], object]
  seconds: float = 0.0
  factor: float = 20.0
  own: Mapping[str, float] = {}


NEVER = Hang(lambda text: None)


class Watchdog:
  """Compares the duration of each phase of a run with the phase's median.

  Use it as a context manager around the run, and call `enter` at every change
  of phase. Contexts may be nested: the outermost one has the thread.
  """

  def __init__(
    self,
    *,
    factor: float = 0.0,
    seconds: float = 60.0,
    report: Callable[[str, bool], object] | None = None,
    hang: Hang = NEVER,
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
      hang: what counts as a hang; by default nothing does.
    """
    self._factor, self._floor, self._report = factor, seconds, report
    self._hang = hang
    # (phase, its start, last step made), replaced as a whole by `enter`.
    self._now: tuple[str | None, float, int] = (None, time.monotonic(), 0)
    self._alive = time.monotonic()  # the last sign of life in this phase
    self._stopped = 0.0  # seconds that the process was stopped since then
    self._past = collections.defaultdict(self._empty)
    self._seconds = collections.defaultdict(float)
    self._ended = threading.Event()
    self._thread = None
    self._entered = 0

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
    self.show_life()
    self._past[before].append(now - since)
    self._seconds[before] += now - since

  def show_life(self) -> None:
    """Tells that a long phase, such as an evaluation, is getting on."""
    self._alive, self._stopped = time.monotonic(), 0.0

  @property
  def step(self) -> int:
    """The last step made."""
    return self._now[2]

  def seconds(self, phase: str) -> float:
    """Returns the seconds spent in a phase so far, without the current one."""
    return self._seconds[phase]

  def hangs(self) -> bool:
    """Returns whether the current phase is a hang; any thread may ask.

    A process whose run hangs sends no heartbeat any more, so the other
    processes notice it even if the process cannot end itself.
    """
    return self._age() >= self._most()

  def _age(self):
    """Returns the seconds since the last sign of life."""
    return time.monotonic() - self._alive - self._stopped

  def _most(self):
    """Returns after how many seconds the current phase is a hang."""
    phase = self._now[0]
    if phase is None or not self._hang.seconds:
      return float('inf')
    name = EVALUATE if phase.startswith(EVALUATE) else phase
    floor = self._hang.own.get(name, self._hang.seconds)
    # It is copied, because the loop appends in its own thread meanwhile.
    past = self._past[phase].copy()
    if len(past) < _MIN_DURATIONS:
      return max(floor, FIRST_FACTOR * self._hang.seconds)
    return max(floor, self._hang.factor * statistics.median(past))

  def __enter__(self) -> Watchdog:
    self._entered += 1
    watches = self._factor or self._hang.seconds
    if watches and self._entered == 1:
      self._ended.clear()
      self._thread = threading.Thread(
        target=self._watch, name='watchdog', daemon=True
      )
      self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._entered -= 1
    if self._entered:
      return
    self.enter(None, self.step)  # What comes after the run is no hang of it.
    self._ended.set()
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def _watch(self):
    reported, looked = None, time.monotonic()
    floors = [self._floor] if self._factor else []
    floors += [self._hang.seconds] if self._hang.seconds else []
    while not self._ended.wait(min(_POLL_S, min(floors) / 4)):
      late, looked = time.monotonic() - looked, time.monotonic()
      if late > _STOPPED_S:
        self._stopped += late
      if self.hangs():
        self._hang.end(f'{self._describe()}; the run hangs and is ended')
        return
      if self._factor:
        reported = self._report_slow(reported)

  def _describe(self):
    return _describe(self._now, time.monotonic() - self._now[1])

  def _report_slow(self, reported):
    """Reports the current phase if it is due. Returns the one last reported."""
    assert self._report is not None, 'a factor needs a report'
    now = self._now
    if reported is not None and now is not reported:
      took = now[1] - reported[1]
      self._report(f'{_describe(reported, took)}, and then ended', False)
      reported = None
    age = time.monotonic() - now[1]
    if now[0] is None or now is reported or age < self._floor:
      return reported
    # The durations are copied, because the loop appends to them in its own
    # thread meanwhile.
    past = self._past[now[0]].copy()
    limit, usual = self._factor * self._floor, 'the first of its kind'
    if len(past) >= _MIN_DURATIONS:
      median = statistics.median(past)
      limit = max(self._floor, self._factor * median)
      usual = f'the median is {median:.3g} s'
    if age < limit:
      return reported
    self._report(f'{_describe(now, age)}; {usual}', True)
    return now


def _describe(occurrence, seconds):
  """Returns a sentence about an occurrence, a (phase, start, step) tuple."""
  phase, _, step = occurrence
  return f'watchdog: {phase} for {seconds:.3g} s after step {step}'
