"""Knows what the run is doing; reports what takes far longer than it did.

Entering a phase is an assignment and costs the step nothing measurable; a
thread looks at the clock. It reports and never ends anything: a hang may be a
slow disk, and whoever reads the stacks knows better.
"""

import collections
import statistics
import threading
import time

DATA = 'waiting for data'
STEP = 'in the training step'
LOG = 'writing the log line'
SAVE = 'saving a checkpoint'
SHOW = 'drawing samples or evaluating'
RESTORE = 'going back to a checkpoint'

_REMEMBERED = 64  # durations of each phase
_ENOUGH = 3  # of them for a median


class Watchdog:
  """Use as a context manager around the loop; `enter` at every change."""

  def __init__(self, *, factor=0.0, seconds=60.0, report=None):
    """Prepares to watch.

    Args:
      factor: a phase is reported when it takes this many times its median; 0
        only counts the seconds and watches nothing.
      seconds: and at least so long. Before a phase has a median, as for the
        first step, which compiles, it may take `factor` times this.
      report: text -> None; called in the watching thread.
    """
    self._factor, self._floor, self._report = factor, seconds, report
    self._now = (None, time.monotonic(), 0)  # phase, since, step
    self._past = collections.defaultdict(self._empty)
    self._seconds = collections.defaultdict(float)
    self._ended = threading.Event()
    self._thread = None

  @staticmethod
  def _empty():
    return collections.deque(maxlen=_REMEMBERED)

  def enter(self, phase, step):
    """Says what the run does from now on, until the next call."""
    now = time.monotonic()
    before, since, _ = self._now
    self._now = (phase, now, step)
    self._past[before].append(now - since)
    self._seconds[before] += now - since

  @property
  def step(self):
    """The last step made."""
    return self._now[2]

  def seconds(self, phase):
    """-> seconds spent in a phase that was left, in all."""
    return self._seconds[phase]

  def __enter__(self):
    if self._factor:
      self._ended.clear()
      self._thread = threading.Thread(
        target=self._watch, name='watchdog', daemon=True
      )
      self._thread.start()
    return self

  def __exit__(self, *_):
    self._ended.set()
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def _watch(self):
    reported = None
    while not self._ended.wait(min(1.0, self._floor / 4)):
      now = self._now
      if reported is not None and now is not reported:
        took = now[1] - reported[1]
        self._report(f'{_said(reported, took)}, and then went on', False)
        reported = None
      age = time.monotonic() - now[1]
      if now[0] is None or now is reported or age < self._floor:
        continue
      past = self._past[now[0]].copy()  # at once, the loop goes on adding
      limit, usual = self._factor * self._floor, 'the first of its kind'
      if len(past) >= _ENOUGH:
        median = statistics.median(past)
        limit = max(self._floor, self._factor * median)
        usual = f'the median is {median:.3g} s'
      if age >= limit:
        reported = now
        self._report(f'{_said(now, age)}; {usual}', True)


def _said(occurrence, seconds):
  phase, _, step = occurrence
  return f'watchdog: {phase} for {seconds:.3g} s after step {step}'
