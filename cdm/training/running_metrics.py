"""Averages the scalars between two log lines, and detects divergence.

A run has diverged when its loss or the norm of its gradient is not finite, or
when that norm spikes: exceeds `spike_factor` times the median of recent steps.
"""

from __future__ import annotations

import collections
import math
import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import jax

from cdm.distributed import exit_codes
from cdm.reporting import process_age
from cdm.training.goodput import Goodput, SavedGoodput
from cdm.training.step import Ratio

if TYPE_CHECKING:
  from cdm.checkpointing.writer import Checkpointer
  from cdm.data.pipeline_state import PipelineState

# Steps that may be queued on the device. More would only hold more batches in
# its memory, and delay the answer to Ctrl-C.
MAX_IN_FLIGHT = 4
# The median gradient norm is taken over this many recent steps, and spikes are
# detected only after at least MIN_NORMS steps.
NUM_NORMS = 64
MIN_NORMS = 16


class Window(TypedDict, total=False):
  """The metrics of an unfinished log line, as checkpoints store them.

  `RunningMetrics` writes all keys; a checkpoint without a window has none.

  Attributes:
    sums: {name: [sum, count]} of the scalars since the last log line.
    grad_norms: gradient norms of the last steps, at most `NUM_NORMS`.
    goodput: what `Goodput.to_json` returned.
    skipped_in_a_row: how many of the last steps were skipped, without a break.
  """

  sums: dict[str, list[float]]
  grad_norms: list[float]
  goodput: SavedGoodput
  skipped_in_a_row: int


class DivergedStep(NamedTuple):
  """The first step whose loss or gradient norm is not finite, or spikes."""

  step: int
  why: str
  position: PipelineState | None  # data position after the batch of that step


class Diverged(FloatingPointError):
  """The loss or the gradient is no longer finite, or the gradient spiked."""

  ending = exit_codes.NOT_FINITE

  def __init__(self, message: str, diverged_step: DivergedStep | None = None):
    super().__init__(message)
    self.diverged_step = diverged_step


class RunningMetrics:
  """Running means of the scalars since the last log line.

  Scalars stay on the device until they are needed. Sums are kept in float64 in
  the order of the steps, so a line does not depend on when they were fetched
  or on whether the run was continued in between.
  """

  LATEST = ('learning_rate', 'param_norm')  # logged as of the last step
  COUNTS = ('skipped_steps',)  # logged as a sum, not as a mean
  LATEST_LOSS_INTERVAL_S = 0.5
  MAX_UNFETCHED_STEPS = 64

  def __init__(
    self,
    saved: Window | None = None,
    *,
    spike_factor: float = 0.0,
    skip_nonfinite: int = 0,
  ):
    """Starts empty, or from the metrics of a saved run.

    Args:
      saved: what `to_json` returned, or None to start empty.
      spike_factor: a gradient norm above this many times the median of the
        last 64 steps counts as divergence; 0 allows every finite norm.
      skip_nonfinite: how many steps in a row the step may skip because they are
        not finite; one more counts as divergence.
    """
    saved = saved or {}
    sums = saved.get('sums', {})
    self._sums: dict[str, tuple[float, float]] = {
      name: (total, count) for name, (total, count) in sums.items()
    }
    self._spike_factor = spike_factor
    self._skip_nonfinite = skip_nonfinite
    self._skipped_in_a_row = saved.get('skipped_in_a_row', 0)
    self._norms = collections.deque(saved.get('grad_norms', ()), NUM_NORMS)
    # (step, scalars on the device, data position) of steps not yet fetched.
    self._waiting: list[tuple[int, Mapping, PipelineState | None]] = []
    self._diverged_step: DivergedStep | None = None
    self._latest_loss: float | None = None
    self._latest_loss_time = time.monotonic()
    self.goodput = Goodput(
      saved.get('goodput'), began=time.time() - process_age.seconds()
    )

  def continued(self, saved: Window) -> RunningMetrics:
    """Returns metrics that continue a saved window, with the same limits."""
    return RunningMetrics(
      saved,
      spike_factor=self._spike_factor,
      skip_nonfinite=self._skip_nonfinite,
    )

  def add(
    self,
    step: int,
    scalars: Mapping[str, jax.Array | Ratio],
    position: PipelineState | None = None,
  ) -> None:
    """Takes the scalars of a step, still on the device.

    Waits until the step MAX_IN_FLIGHT before this one is computed, which keeps
    the host from running far ahead of the device.

    Args:
      step: number of updates made, this one included.
      scalars: what the step returned, see `step.make_step`.
      position: data position after the batch of this step.
    """
    self._waiting.append((step, scalars, position))
    if len(self._waiting) > MAX_IN_FLIGHT:
      jax.block_until_ready(self._waiting[-1 - MAX_IN_FLIGHT][1]['loss'])

  def drain(self, *, leave: int = 0, up_to: int | None = None) -> None:
    """Fetches and adds up the scalars of steps.

    Args:
      leave: the newest steps so many are left out.
      up_to: the last step that is fetched; None is the newest.
    """
    ready = self._waiting[: len(self._waiting) - leave]
    if up_to is not None:
      ready = [waiting for waiting in ready if waiting[0] <= up_to]
    self._waiting = self._waiting[len(ready) :]
    fetched = jax.device_get([scalars for _, scalars, _ in ready])
    for (step, _, position), scalars in zip(ready, fetched, strict=True):
      self._add_to_sums(scalars)
      self._check_divergence(step, scalars, position)

  def in_flight(self) -> int:
    """Returns how many of the steps taken the device has not made yet."""
    count = 0
    for _, scalars, _ in reversed(self._waiting):
      loss = scalars['loss']
      if not isinstance(loss, jax.Array) or loss.is_ready():
        break
      count += 1
    return count

  def _add_to_sums(self, scalars):
    if scalars.get('skipped_steps'):
      # Of a skipped step the other scalars are not finite, or say nothing.
      kept = (*self.LATEST, *self.COUNTS)
      scalars = {name: scalars[name] for name in kept if name in scalars}
    for name, value in scalars.items():
      pair = value if isinstance(value, Ratio) else Ratio(value, 1)
      total, count = (float(part) for part in pair)
      if name not in self.LATEST:
        total += self._sums.get(name, (0.0, 0.0))[0]
        count += self._sums.get(name, (0.0, 0.0))[1]
      self._sums[name] = (total, count)

  def _check_divergence(self, step, scalars, position):
    if self._diverged_step is not None:
      return
    for name in [n for n in ('loss', 'grad_norm') if n in scalars]:
      value = float(scalars[name])
      if not math.isfinite(value):
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row <= self._skip_nonfinite:
          return
        why = f'{name} is {value} at step {step}'
        if self._skip_nonfinite:
          why += f', after {self._skip_nonfinite} skipped in a row'
        self._diverged_step = DivergedStep(step, why, position)
        return
    self._skipped_in_a_row = 0
    if not self._spike_factor or 'grad_norm' not in scalars:
      return
    norm = float(scalars['grad_norm'])
    if len(self._norms) >= MIN_NORMS:
      median = statistics.median(self._norms)
      if norm > self._spike_factor * median:
        why = f'grad_norm is {norm:.4g} at step {step}, where {median:.4g}'
        self._diverged_step = DivergedStep(step, f'{why} was usual', position)
        return
    self._norms.append(norm)

  def latest_loss(self) -> float | None:
    """Returns the mean loss since the last log line, for a progress display.

    It never waits for the device: steps that may still be in flight are left
    out. It returns None, and fetches nothing, less than LATEST_LOSS_INTERVAL_S
    after the last fetch, unless MAX_UNFETCHED_STEPS steps have been made since.
    """
    now = time.monotonic()
    soon = now - self._latest_loss_time < self.LATEST_LOSS_INTERVAL_S
    if soon and len(self._waiting) < self.MAX_UNFETCHED_STEPS:
      return None
    self._latest_loss_time = now
    self.drain(leave=min(MAX_IN_FLIGHT, len(self._waiting)))
    self._latest_loss = self.means().get('loss', self._latest_loss)
    return self._latest_loss

  def means(self) -> dict[str, float]:
    """Returns {name: mean}, without the log-SNR bins that stayed empty."""
    return {
      name: total if name in self.COUNTS else total / count
      for name, (total, count) in self._sums.items()
      if count
    }

  def clear(self) -> None:
    """Sets the sums to zero, for the next log line."""
    self._latest_loss = self.means().get('loss', self._latest_loss)
    self._sums = {}

  def to_json(self) -> Window:
    """Returns what `__init__` continues from; JSON keeps floats exactly."""
    assert not self._waiting, 'drain first'
    return {
      'sums': {name: list(pair) for name, pair in self._sums.items()},
      'grad_norms': list(self._norms),
      'goodput': self.goodput.to_json(),
      'skipped_in_a_row': self._skipped_in_a_row,
    }

  def check(self, checkpointer: Checkpointer, at: int) -> None:
    """Raises Diverged if one of the drained steps diverged.

    Args:
      checkpointer: tells which checkpoint the run can continue from.
      at: the last step made.
    """
    if self._diverged_step is None:
      return
    checkpointer.wait()
    step, why, _ = self._diverged_step
    last = checkpointer.latest_step()
    kept = 'no checkpoint was saved before'
    if last is not None:
      kept = f'the last good checkpoint is step {last}'
    raise Diverged(
      f'{why} (found at step {at}: steps {step} to {at} are lost); {kept}. '
      'Lower optimizer.learning_rate, set optimizer.clip_norm or look at the '
      'data of that step, then start the same command again. With '
      "train.on_divergence='rollback' a run leaves out such data by itself.",
      self._diverged_step,
    )
