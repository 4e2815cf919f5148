"""What happened between two log lines: means of scalars, and the NaN check."""

import math
import time

import jax

from cdm.train.step import Ratio

# Steps that may be queued on the device. More would only hold more batches in
# its memory, and put off Ctrl-C.
MAX_IN_FLIGHT = 4


class Diverged(FloatingPointError):
  """The loss or the gradient is no longer finite."""


class Window:
  """Running means of the scalars since the last log line.

  Scalars stay on the device until they are needed. Sums are kept in float64 in
  the order of the steps, so a line does not depend on when they were fetched
  or on whether the run was continued in between.
  """

  LATEST = ('learning_rate', 'param_norm')  # shown as they are, not averaged
  GLANCE_SECONDS = 0.5
  GLANCE_STEPS = 64

  def __init__(self, sums=None):
    """sums: what `to_json` gave."""
    self._sums = {name: tuple(pair) for name, pair in (sums or {}).items()}
    self._waiting = []  # (step, scalars on the device)
    self._bad = None  # (step, name, value) of the first that is not finite
    self._shown = None
    self._glanced = time.monotonic()

  def add(self, step, scalars):
    """Takes the scalars of a step; waits for one that is well past."""
    self._waiting.append((step, scalars))
    if len(self._waiting) > MAX_IN_FLIGHT:
      jax.block_until_ready(self._waiting[-1 - MAX_IN_FLIGHT][1]['loss'])

  def drain(self, *, leave=0):
    """Fetches all but the newest `leave` steps."""
    ready = self._waiting[: len(self._waiting) - leave]
    self._waiting = self._waiting[len(ready) :]
    fetched = jax.device_get([scalars for _, scalars in ready])
    for (step, _), scalars in zip(ready, fetched, strict=True):
      self._add(step, scalars)

  def _add(self, step, scalars):
    for name, value in scalars.items():
      pair = value if isinstance(value, Ratio) else Ratio(value, 1)
      total, count = (float(part) for part in pair)
      if name not in self.LATEST:
        total += self._sums.get(name, (0.0, 0.0))[0]
        count += self._sums.get(name, (0.0, 0.0))[1]
      self._sums[name] = (total, count)
    for name in ('loss', 'grad_norm'):
      value = float(scalars[name])
      if self._bad is None and not math.isfinite(value):
        self._bad = (step, name, value)

  def glance(self):
    """-> the mean loss so far, every now and then; never waits."""
    now = time.monotonic()
    soon = now - self._glanced < self.GLANCE_SECONDS
    if soon and len(self._waiting) < self.GLANCE_STEPS:
      return None
    self._glanced = now
    self.drain(leave=min(MAX_IN_FLIGHT, len(self._waiting)))
    self._shown = self.means().get('loss', self._shown)
    return self._shown

  def means(self):
    """-> {name: mean}; bins that stayed empty are left out."""
    return {
      name: total / count
      for name, (total, count) in self._sums.items()
      if count
    }

  def clear(self):
    """Begins a new line."""
    self._shown = self.means().get('loss', self._shown)
    self._sums = {}

  def to_json(self):
    """-> what continues this window; floats survive JSON exactly."""
    assert not self._waiting, 'drain first'
    return {name: list(pair) for name, pair in self._sums.items()}

  def check(self, checkpointer, at):
    """Raises Diverged if a drained step was not finite."""
    if self._bad is None:
      return
    checkpointer.wait()
    step, name, value = self._bad
    last = checkpointer.latest_step()
    kept = 'no checkpoint was saved before'
    if last is not None:
      kept = f'the last good checkpoint is step {last}'
    raise Diverged(
      f'{name} is {value} at step {step} (found at step {at}: steps {step} to '
      f'{at} are lost); {kept}. Lower optimizer.learning_rate, set '
      'optimizer.clip_norm or look at the data of that step, then start the '
      'same command again.'
    )
