"""Goodput: the share of a run's time that went into steps that were kept.

Counted from the very first start to now, so start-up, compiling, lost steps,
waiting for data, saving, drawing and the time between two starts all lower it.
Its two numbers go with the checkpoint: seconds of steps that a kill undid are
forgotten with them.
"""

import time


class Goodput:
  """Adds up over restarts."""

  def __init__(self, saved=None, *, clock=time.time):
    """saved: what `to_json` gave; None begins a run now."""
    self._clock = clock
    saved = saved or {}
    self._began = saved.get('began', clock())
    self._seconds = saved.get('seconds', 0.0)

  def add(self, seconds):
    """Takes seconds spent in steps."""
    self._seconds += seconds

  def share(self):
    """-> 0 to 1."""
    return min(self._seconds / max(self._clock() - self._began, 1e-9), 1.0)

  def to_json(self):
    """-> what continues the count."""
    return {'began': self._began, 'seconds': self._seconds}
