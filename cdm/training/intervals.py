"""Decides what is due by the clock, equally in every process.

The clock is that of process 0, and it never goes back or jumps, as the time of
day may.
"""

import time
from collections.abc import Callable, Mapping

from cdm.distributed.announcements import Announcements

SAVE, COPY = 'save', 'copy'


class Intervals:
  """Actions that are made again when so many minutes have passed."""

  def __init__(
    self,
    minutes: Mapping[str, float],
    *,
    now: Callable[[], float] = time.monotonic,
  ):
    """Starts the clocks of all actions.

    Args:
      minutes: {action: minutes from one to the next}; 0 never makes it.
      now: returns seconds that only grow.
    """
    self._seconds = {k: 60 * v for k, v in minutes.items() if v > 0}
    self._now = now
    self._since = dict.fromkeys(self._seconds, now())
    self._made: set[str] = set()  # since the last call of `due`
    self._announced = Announcements('intervals')

  def due(self) -> set[str]:
    """Returns the actions that are to be made now.

    Every process must call it, equally often. In a run of several processes an
    action that has become due is made at the next call.
    """
    if not self._seconds:
      return set()
    passed = [
      action
      for action, seconds in self._seconds.items()
      if self._now() - self._since[action] >= seconds
    ]
    for action in passed:
      self._since[action] = self._now()
    announced: list[str] = self._announced.exchange(passed) or []
    made, self._made = self._made, set()
    # What was made since it was announced is not made again.
    return set(announced) - (made if self._announced.is_delayed else set())

  def made(self, action: str) -> None:
    """Starts the clock of an action anew, because it was made just now."""
    if action in self._since:
      self._since[action] = self._now()
      self._made.add(action)
