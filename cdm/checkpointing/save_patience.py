"""Tells when a failed save is made again, and for how long.

Training goes on meanwhile, so a storage that is away for some minutes costs
nothing. The clock is that of process 0, whose answers all processes get.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

# The first attempt after a failure is made at once.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 300.0
# With nothing left to do but to save, attempts are made more often, and for as
# long as the work took that would be lost, but at least for so long.
LAST_PAUSE_S, LEAST_S = 20.0, 5.0


class Failing(NamedTuple):
  """How it stands with saving after a failure.

  Attributes:
    failing: seconds since the first failure after the last good save.
    unsaved: seconds since that save, or since the start.
    pause: seconds until the next attempt.
  """

  failing: float = 0.0
  unsaved: float = 0.0
  pause: float = 0.0

  def is_over(self, seconds: float) -> bool:
    """Returns whether the run ends, if saving may fail for so long."""
    return self.failing >= seconds

  def is_over_at_the_end(self, seconds: float) -> bool:
    """Returns the same for a run that has nothing left to do but to save."""
    worth = max(LEAST_S, self.unsaved - self.failing)
    return self.failing >= min(seconds, worth)

  def last_pause(self) -> float:
    """Returns the pause before an attempt when nothing else is left to do."""
    return max(1.0, min(self.pause, LAST_PAUSE_S))


class Patience:
  """The failures of the saves of a run, one after the other."""

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    """Begins when the run does."""
    self._clock = clock
    self._good = clock()  # when the last save was complete
    self._since: float | None = None  # when the first one after it failed
    self._failures = 0
    self._next: float | None = None  # when the next attempt is due

  def succeeded(self) -> None:
    """Notes that a save is complete."""
    self._good = self._clock()
    self._since = self._next = None
    self._failures = 0

  def failed(self) -> Failing:
    """Notes that a save has failed, and returns how it stands."""
    now = self._clock()
    if self._since is None:
      self._since = now
    pause = 0.0
    if self._failures:
      pause = min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
    self._failures += 1
    self._next = now + pause
    return Failing(now - self._since, now - self._good, pause)

  def is_due(self) -> bool:
    """Returns whether a save has failed and is to be made again now."""
    return self._next is not None and self._clock() >= self._next
