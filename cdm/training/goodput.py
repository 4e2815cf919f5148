"""Measures goodput: the share of a run's time spent in steps that were kept.

The time counts from the start of the very first process to now, so start-up
(whose seconds a log line names as `start_seconds`), compiling, lost steps,
waiting for data, saving, drawing and the time between two starts all lower the
goodput. What the evaluations of held-out images take of that is a share of its
own. The numbers are saved in the checkpoint, so the seconds of steps that a
kill undid are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypedDict


class SavedGoodput(TypedDict, total=False):
  """The numbers of the goodput, as checkpoints store them.

  `Goodput` writes all; one that is absent starts afresh.

  Attributes:
    began: when the very first process started, seconds since 1970.
    seconds: seconds that were spent in kept steps.
    evaluation_seconds: seconds that were spent evaluating.
  """

  began: float
  seconds: float
  evaluation_seconds: float


class Goodput:
  """Adds up the seconds of a run's kept steps, over all of its restarts."""

  def __init__(
    self,
    saved: SavedGoodput | None = None,
    *,
    began: float | None = None,
    clock: Callable[[], float] = time.time,
  ):
    """Begins a run now, or continues a saved one.

    Args:
      saved: what `to_json` returned, or None for a new run.
      began: when this process started, seconds since 1970; None is now. A saved
        run keeps its own.
      clock: returns the wall-clock time in seconds.
    """
    self._clock = clock
    saved = saved or {}
    self._began = saved.get('began', clock() if began is None else began)
    self._seconds = saved.get('seconds', 0.0)
    self._evaluation_seconds = saved.get('evaluation_seconds', 0.0)

  def add(self, seconds: float) -> None:
    """Adds seconds that were spent in steps."""
    self._seconds += seconds

  def add_evaluation(self, seconds: float) -> None:
    """Adds seconds that were spent evaluating."""
    self._evaluation_seconds += seconds

  def share(self) -> float:
    """Returns the goodput so far, in [0, 1]."""
    return self._of_all(self._seconds)

  def evaluation_share(self) -> float:
    """Returns the share of the run's time spent evaluating, in [0, 1]."""
    return self._of_all(self._evaluation_seconds)

  def _of_all(self, seconds):
    return min(seconds / max(self._clock() - self._began, 1e-9), 1.0)

  def to_json(self) -> SavedGoodput:
    """Returns what `__init__` continues from."""
    return {
      'began': self._began,
      'seconds': self._seconds,
      'evaluation_seconds': self._evaluation_seconds,
    }
