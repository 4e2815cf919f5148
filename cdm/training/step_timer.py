"""Measures images per second, seconds per step, and time waiting for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable


class Timer:
  """Divides the time between two log lines: training, waiting, and the rest."""

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self._clock = clock
    self.restart(None)

  def restart(self, step: int | None) -> None:
    """Begins a new interval at `step`, the last step made; None begins none."""
    self._step = step
    self._start = self._clock()
    self._away = 0.0
    self._waiting = 0.0

  def away(self) -> contextlib.AbstractContextManager:
    """Returns a context for time outside training: drawing samples, saving."""
    return _Lap(self, '_away')

  def waiting(self) -> contextlib.AbstractContextManager:
    """Returns a context for time spent waiting for data."""
    return _Lap(self, '_waiting')

  def rates(self, step: int, *, batch_size: int) -> dict[str, float]:
    """Returns the scalars of the interval up to `step`.

    Args:
      step: the last step made.
      batch_size: images of a global batch.

    Returns:
      `images_per_second`, `step_seconds` and `data_wait_fraction` in [0, 1];
      {} if the interval holds no step.
    """
    if self._step is None or step <= self._step:
      return {}
    steps = step - self._step
    seconds = max(self._clock() - self._start - self._away, 1e-9)
    return {
      'images_per_second': steps * batch_size / seconds,
      'step_seconds': seconds / steps,
      'data_wait_fraction': min(self._waiting / seconds, 1.0),
    }


class _Lap:
  def __init__(self, timer, name):
    self._timer = timer
    self._name = name

  def __enter__(self):
    self._start = self._timer._clock()

  def __exit__(self, *_):
    lap = self._timer._clock() - self._start
    setattr(self._timer, self._name, getattr(self._timer, self._name) + lap)
