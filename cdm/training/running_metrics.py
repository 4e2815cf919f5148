"""What happened between two log lines: means of scalars, and divergence."""

import collections
import math
import statistics
import time
from typing import NamedTuple

import jax

from cdm.distributed import exit_codes
from cdm.training.goodput import Goodput
from cdm.training.step import Ratio

# Steps that may be queued on the device. More would only hold more batches in
# its memory, and put off Ctrl-C.
MAX_IN_FLIGHT = 4
# Steps whose gradient norms tell what is usual, and how many it takes.
USUAL_STEPS = 64
ENOUGH_STEPS = 16


class DivergedStep(NamedTuple):
  """The first step of a window that cannot stay."""

  step: int
  why: str
  position: dict | None  # of the data, after the batch of that step


class Diverged(FloatingPointError):
  """The loss or the gradient is no longer finite, or has spiked."""

  ending = exit_codes.NOT_FINITE

  def __init__(self, message, bad=None):
    super().__init__(message)
    self.bad = bad


class RunningMetrics:
  """Running means of the scalars since the last log line.

  Scalars stay on the device until they are needed. Sums are kept in float64 in
  the order of the steps, so a line does not depend on when they were fetched
  or on whether the run was continued in between.
  """

  LATEST = ('learning_rate', 'param_norm')  # shown as they are, not averaged
  GLANCE_SECONDS = 0.5
  GLANCE_STEPS = 64

  def __init__(self, saved=None, *, spike_factor=0.0):
    """Begins a window, or continues one.

    Args:
      saved: what `to_json` gave.
      spike_factor: a gradient norm so many times the median of the last 64
        steps is divergence; 0 lets it be anything finite.
    """
    saved = saved or {}
    sums = saved.get('sums', {})
    self._sums = {name: tuple(pair) for name, pair in sums.items()}
    self._spike_factor = spike_factor
    self._usual = collections.deque(saved.get('grad_norms', ()), USUAL_STEPS)
    self._waiting = []  # (step, scalars on the device, data position)
    self._bad = None
    self._shown = None
    self._glanced = time.monotonic()
    self.goodput = Goodput(saved.get('goodput'))

  def add(self, step, scalars, position=None):
    """Takes the scalars of a step; waits for one that is well past.

    Args:
      step: its number.
      scalars: see step.make_step.
      position: of the data after its batch.
    """
    self._waiting.append((step, scalars, position))
    if len(self._waiting) > MAX_IN_FLIGHT:
      jax.block_until_ready(self._waiting[-1 - MAX_IN_FLIGHT][1]['loss'])

  def drain(self, *, leave=0):
    """Fetches all but the newest `leave` steps."""
    ready = self._waiting[: len(self._waiting) - leave]
    self._waiting = self._waiting[len(ready) :]
    fetched = jax.device_get([scalars for _, scalars, _ in ready])
    for (step, _, position), scalars in zip(ready, fetched, strict=True):
      self._add(step, scalars)
      self._judge(step, scalars, position)

  def _add(self, step, scalars):
    for name, value in scalars.items():
      pair = value if isinstance(value, Ratio) else Ratio(value, 1)
      total, count = (float(part) for part in pair)
      if name not in self.LATEST:
        total += self._sums.get(name, (0.0, 0.0))[0]
        count += self._sums.get(name, (0.0, 0.0))[1]
      self._sums[name] = (total, count)

  def _judge(self, step, scalars, position):
    if self._bad is not None:
      return
    for name in ('loss', 'grad_norm'):
      value = float(scalars[name])
      if not math.isfinite(value):
        self._bad = DivergedStep(
          step, f'{name} is {value} at step {step}', position
        )
        return
    if not self._spike_factor:
      return
    norm = float(scalars['grad_norm'])
    if len(self._usual) >= ENOUGH_STEPS:
      median = statistics.median(self._usual)
      if norm > self._spike_factor * median:
        why = f'grad_norm is {norm:.4g} at step {step}, where {median:.4g}'
        self._bad = DivergedStep(step, f'{why} was usual', position)
        return
    self._usual.append(norm)

  def latest_loss(self):
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
    return {
      'sums': {name: list(pair) for name, pair in self._sums.items()},
      'grad_norms': list(self._usual),
      'goodput': self.goodput.to_json(),
    }

  def check(self, checkpointer, at):
    """Raises Diverged if a drained step cannot stay."""
    if self._bad is None:
      return
    checkpointer.wait()
    step, why, _ = self._bad
    last = checkpointer.latest_step()
    kept = 'no checkpoint was saved before'
    if last is not None:
      kept = f'the last good checkpoint is step {last}'
    raise Diverged(
      f'{why} (found at step {at}: steps {step} to {at} are lost); {kept}. '
      'Lower optimizer.learning_rate, set optimizer.clip_norm or look at the '
      'data of that step, then start the same command again. With '
      "train.on_divergence='rollback' a run leaves out such data by itself.",
      self._bad,
    )
