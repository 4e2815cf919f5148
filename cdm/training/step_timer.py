"""Measures the time of steps: the rate, and the share of waiting for data."""

import time


class Timer:
  """Where the time between two log lines goes."""

  def __init__(self, clock=time.monotonic):
    self._clock = clock
    self.restart(None)

  def restart(self, step):
    """Begins a new interval at `step`; None if nothing is timed yet."""
    self._step = step
    self._start = self._clock()
    self._away = 0.0
    self._waiting = 0.0

  def away(self):
    """Context: time that is not training, as drawing samples or saving."""
    return _Lap(self, '_away')

  def waiting(self):
    """Context: time spent waiting for data."""
    return _Lap(self, '_waiting')

  def rates(self, step, *, batch_size):
    """-> scalars of the interval up to `step`; {} if it holds no step."""
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
