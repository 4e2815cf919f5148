"""Runs the training loop: reads data, makes steps, logs, saves and stops.

The host runs a few steps ahead of the device. It waits for the last step only
when a line is logged or a checkpoint is saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from cdm.distributed import exit_codes
from cdm.reporting import progress
from cdm.training import step_timer, watchdog
from cdm.training.preemption import Stop
from cdm.training.prefetch import BatchIterator, Prefetch
from cdm.training.rollback import Rollbacks
from cdm.training.running_metrics import (
  Diverged,
  DivergedStep,
  RunningMetrics,
)
from cdm.training.state import TrainState, make_state

if TYPE_CHECKING:
  from cdm.checkpointing.writer import Checkpointer
  from cdm.reporting.metric_writer import Reporter
  from cdm.training.optimizer import Optimizer
  from cdm.training.run_config import Run


class Outcome(NamedTuple):
  """How a run ended: complete or stopped; a run that fails raises instead."""

  state: TrainState
  step: int
  ending: exit_codes.ExitCode

  @property
  def exit_code(self) -> int:
    """0 if the run is complete, 130 after Ctrl-C, 75 if preempted."""
    return self.ending.code


@dataclasses.dataclass(frozen=True)
class Collaborators:
  """The objects that a run reads data from, saves to and reports to.

  Attributes:
    iterator: the data of this process. It is read ahead, so after `train` its
      position is beyond the one that was saved.
    checkpointer: saves and restores the checkpoints of the work directory.
    reporter: writes the records of the work directory.
    rollbacks: rollbacks of the work directory; None ends the run when it
      diverges.
    watch: the watchdog; by default one that reports nothing.
  """

  iterator: BatchIterator
  checkpointer: Checkpointer
  reporter: Reporter
  rollbacks: Rollbacks | None = None
  watch: watchdog.Watchdog = dataclasses.field(
    default_factory=watchdog.Watchdog
  )


@dataclasses.dataclass(frozen=True)
class Hooks:
  """Functions that the loop calls between steps, unless they are None.

  Attributes:
    draw_samples: ema_params -> uint8 [H, W, 3], or None if there is nothing to
      show; called every sample_every_steps of the schedule, and at the end.
    evaluate: ema_params -> {name: number}. `cdm train` does not set it yet; it
      is meant for evaluating held-out images during training.
    evaluate_every_steps: interval of evaluations; there is one at the end too.
      0 makes none.
    gauges: (step, rates of a log line) -> further scalars for that line.
    first_step: called when the first step is made, which compiles.
    update: (step, train_step, state, batch) -> train_step(state, batch).
  """

  draw_samples: Callable | None = None
  evaluate: Callable | None = None
  evaluate_every_steps: int = 0
  gauges: Callable[[int, dict], dict] | None = None
  first_step: Callable[[], object] | None = None
  update: Callable = lambda step, train_step, *args: train_step(*args)


def start(
  init: Callable[[jax.Array], object],
  tx: Optimizer,
  *,
  key: jax.Array,
  abstract: TrainState,
  schedule: Run,
  collaborators: Collaborators,
) -> tuple[TrainState, RunningMetrics]:
  """Begins a run, or continues it if its work directory has a checkpoint.

  Args:
    init: key -> params.
    tx: the optimizer.
    key: typed key of the run; a continued run keeps the key it began with.
    abstract: shapes and shardings of the state, which
      `partitioning.with_shardings` returns.
    schedule: the section `train`; only its spike factor is used here.
    collaborators: the objects of the run. The iterator is moved to the position
      saved in the checkpoint, or behind the data that a rollback to that
      checkpoint skipped. The reporter removes log lines of steps after the
      checkpoint.

  Returns:
    (TrainState on the mesh, metrics since the last log line), for `train`.
  """
  checkpointer, reporter = collaborators.checkpointer, collaborators.reporter
  rollbacks = collaborators.rollbacks
  new_metrics = functools.partial(
    RunningMetrics,
    spike_factor=schedule.grad_norm_spike_factor,
    skip_nonfinite=tx.skip_nonfinite,
  )
  restored = checkpointer.restore_latest(abstract)
  if restored is None:
    state, step = make_state(init, tx, key=key, abstract=abstract), 0
    metrics = new_metrics()
  else:
    state, step = restored.state, restored.step
    metrics = new_metrics(restored.window)
    skipped = rollbacks.position(step) if rollbacks is not None else None
    collaborators.iterator.set_state(skipped or restored.data_state)
    reporter.say(f'continuing from the checkpoint of step {step}')
  # The rollbacks are changed last, because a start that is refused must leave
  # the run unchanged.
  if rollbacks is not None:
    rollbacks.resume(step)
  reporter.resume(step)
  checkpointer.write_config()
  return state, metrics


def train(
  state: TrainState,
  metrics: RunningMetrics,
  *,
  step: Callable,
  mesh: jax.sharding.Mesh,
  schedule: Run,
  collaborators: Collaborators,
  hooks: Hooks | None = None,
  stop: Stop | None = None,
) -> Outcome:
  """Trains from state.step to schedule.num_steps, or until asked to stop.

  A run that is stopped or killed, and started again, logs the same numbers
  and ends with the same state as a run that was never interrupted.

  Args:
    state: TrainState; donated.
    metrics: the metrics since the last log line, see `start`.
    step: (state, batch) -> (state, scalars), see `step.make_step`.
    mesh: the device mesh.
    schedule: the section `train`, see `run_config.Run`. Each log line averages
      the scalars since the line before; the last step is saved too.
    collaborators: the same that `start` took.
    hooks: functions to call between steps; by default, nothing is drawn or
      evaluated.
    stop: tells when to stop; by default on SIGINT and SIGTERM.

  Returns:
    Outcome.

  Raises:
    Diverged: if a loss or a gradient is not finite, or spikes, and no rollback
      is left. Nothing is saved from that step on; the message names the steps.
    exit_codes.DataError: if reading fails; raised from the original error.
    OSError: if a checkpoint or report cannot be written.
  """
  reporter, num_steps = collaborators.reporter, schedule.num_steps
  rollbacks = collaborators.rollbacks
  if int(state.step) >= num_steps:
    at = int(state.step)
    reporter.say(f'step {at} of {num_steps}: the run is complete')
    return Outcome(state, at, exit_codes.COMPLETE)
  loop = _Loop(
    state,
    metrics,
    train_step=step,
    schedule=schedule,
    collaborators=collaborators,
    hooks=Hooks() if hooks is None else hooks,
  )
  # Without this, a rollback would hold this state in memory beside the one that
  # it restores.
  del state
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(Stop() if stop is None else stop)
    stack.enter_context(collaborators.watch)
    stack.callback(reporter.end_progress)
    while True:
      try:
        with Prefetch(collaborators.iterator, mesh) as batches:
          return loop.run(batches, stop)
      except Diverged as error:
        if rollbacks is None or not rollbacks.permitted():
          raise
        diverged_step, message = error.diverged_step, str(error)
        assert diverged_step is not None  # `RunningMetrics.check` names it
      # This is outside of the handler, because there the traceback would keep
      # the diverged state in memory.
      loop.roll_back(diverged_step, message, rollbacks)


class _Loop:
  """The state of a run between two steps, and the actions in and after one."""

  def __init__(
    self, state, metrics, *, train_step, schedule, collaborators, hooks
  ):
    self.state: Any = state  # TrainState; None during a rollback
    self.metrics = metrics
    self.train_step = train_step
    self.schedule, self.hooks = schedule, hooks
    self.iterator, self.watch = collaborators.iterator, collaborators.watch
    self.checkpointer = collaborators.checkpointer
    self.reporter = collaborators.reporter
    self.timer = step_timer.Timer()
    self.batch_size: Any = None  # global; known from the first batch on
    self.data_state: Any = None  # data position after the last step's batch
    self.step = self.saved_step = int(state.step)  # number of updates made
    # Like `step`, but it never goes back, see `Stop.due`.
    self.boundary = self.step
    self.compiled = False  # the first step is made, and progress is shown
    # Seconds of the phase STEP that goodput has counted, or must not count.
    self.counted_seconds = 0.0

  def run(self, batches, stop):
    """Trains until the run is complete or asked to stop. Returns the Outcome.

    Raises Diverged if a step diverged.
    """
    while self.step < self.schedule.num_steps:
      if stop.due(self.boundary) or not self.run_step(batches, stop):
        break
    complete = self.step == self.schedule.num_steps
    if complete and self.step % self.schedule.log_every_steps:
      # The sums are kept: if num_steps is raised later, the next regular line
      # averages over all steps since the last regular one.
      self.log()
    if self.step > self.saved_step:
      self.save()
    if complete:
      self.draw_and_evaluate(final=True)
    self.watch.enter(watchdog.SAVE, self.step)
    self.checkpointer.wait()
    self.watch.enter(None, self.step)
    self.reporter.end_progress()
    if complete:
      return Outcome(self.state, self.step, exit_codes.COMPLETE)
    name = 'preempted'
    if stop.signum is not None:
      name = signal.Signals(stop.signum).name
    self.reporter.say(
      f'{name}: stopped after step {self.step} of {self.schedule.num_steps}'
      + (', which is saved' if self.step else '')
      + '; the same command continues from there'
    )
    return Outcome(self.state, self.step, stop.ending)

  def run_step(self, batches, stop):
    """Makes one step, then logs, saves and draws where that is due.

    Returns False if there was no batch, because the run was asked to stop.
    """
    self.watch.enter(watchdog.DATA, self.step)
    with self.timer.waiting():
      item = batches.next(stop, self.step)
    if item is None:
      return False
    batch, self.data_state = item
    if not self.compiled:
      self.reporter.say('compiling the training step ...')
    began = time.monotonic()
    self.watch.enter(watchdog.STEP, self.step)
    self.state, scalars = self.hooks.update(
      self.step + 1, self.train_step, self.state, batch
    )
    self.step += 1
    self.boundary += 1
    self.metrics.add(self.step, scalars, self.data_state)
    if not self.compiled:
      self.report_first_step(batch, scalars, time.monotonic() - began)
    self.reporter.progress(self.step, self.metrics.latest_loss())
    if self.step % self.schedule.log_every_steps == 0:
      self.log()
      self.metrics.clear()
      self.timer.restart(self.step)
    with self.timer.away():
      # The checkpoint is saved first, so that an error while drawing loses no
      # step.
      if self.step % self.schedule.save_every_steps == 0:
        self.save()
      self.draw_and_evaluate()
    return True

  def report_first_step(self, batch, scalars, seconds):
    """Reports the first step, which compiled, and starts to show progress."""
    self.compiled = True
    began = time.monotonic()
    jax.block_until_ready(scalars)
    took = progress.duration(seconds + time.monotonic() - began)
    self.reporter.say(f'first step after {took}')
    if self.hooks.first_step is not None:
      self.hooks.first_step()
    # Goodput leaves out this step, most of whose time went into compiling.
    self.watch.enter(watchdog.LOG, self.step)
    self.counted_seconds = self.watch.seconds(watchdog.STEP)
    self.batch_size = jax.tree.leaves(batch)[0].shape[0]
    self.reporter.start_progress(
      total=self.schedule.num_steps, step=self.step, unit_size=self.batch_size
    )
    self.timer.restart(self.step)

  def fetch_scalars(self):
    """Fetches the scalars of every step made, and adds its time to goodput.

    Raises Diverged if one of the steps diverged.
    """
    self.watch.enter(watchdog.STEP, self.step)
    self.metrics.drain()
    self.watch.enter(watchdog.LOG, self.step)
    self.metrics.check(self.checkpointer, self.step)
    spent = self.watch.seconds(watchdog.STEP)
    self.metrics.goodput.add(spent - self.counted_seconds)
    self.counted_seconds = spent

  def log(self):
    self.fetch_scalars()
    rates = self.timer.rates(self.step, batch_size=self.batch_size)
    means = self.metrics.means()
    rates['goodput'] = self.metrics.goodput.share()
    if self.hooks.gauges is not None:
      rates |= self.hooks.gauges(self.step, rates)
    self.reporter.scalars(self.step, means | rates)
    # A line has no loss if all of its steps were skipped.
    self.reporter.progress(self.step, means.get('loss'))

  def save(self):
    self.fetch_scalars()
    self.watch.enter(watchdog.SAVE, self.step)
    self.checkpointer.save(
      self.step,
      self.state,
      data_state=self.data_state,
      window=self.metrics.to_json(),
    )
    self.saved_step = self.step

  def draw_and_evaluate(self, final=False):
    def due(every, make):
      if make is None or not every or (self.step % every == 0) == final:
        return False
      self.watch.enter(watchdog.SHOW, self.step)
      return True

    if due(self.schedule.sample_every_steps, self.hooks.draw_samples):
      image = self.hooks.draw_samples(self.state.ema_params)
      if image is not None:
        self.reporter.grid(self.step, 'samples', image)
    if due(self.hooks.evaluate_every_steps, self.hooks.evaluate):
      self.reporter.scalars(
        self.step, self.hooks.evaluate(self.state.ema_params)
      )

  def roll_back(
    self,
    diverged_step: DivergedStep,
    message: str,
    rollbacks: Rollbacks,
  ) -> None:
    """Goes back to the last scheduled checkpoint and skips the diverged data.

    Only checkpoints at multiples of save_every_steps are used, because every
    run of this config makes those; later checkpoints are deleted. So the
    result is the same whether or not the run was stopped in between.

    Args:
      diverged_step: the step that diverged.
      message: of the Diverged error.
      rollbacks: where this rollback is recorded.

    Raises:
      Diverged: if there is no such checkpoint.
    """
    every = self.schedule.save_every_steps
    scheduled = [
      s
      for s in self.checkpointer.steps()
      if s < diverged_step.step and s % every == 0
    ]
    if not scheduled:
      raise Diverged(message, diverged_step)
    self.watch.enter(watchdog.RESTORE, self.step)
    abstract = jax.tree.map(_shape_and_place, self.state)
    self.state = None  # Its memory is needed for the state that is restored.
    gc.collect()
    # The checkpoints are deleted before the rollback is recorded: a run that is
    # killed in between diverges once more and rolls back again.
    self.checkpointer.forget_after(scheduled[-1])
    restored = self.checkpointer.restore_latest(abstract)
    rollbacks.resume(restored.step)
    rollbacks.add(
      to=restored.step,
      diverged_step=diverged_step.step,
      why=diverged_step.why,
      position=diverged_step.position,
    )
    self.iterator.set_state(diverged_step.position)
    self.reporter.resume(restored.step)
    self.state, self.step = restored.state, restored.step
    self.saved_step, self.data_state = restored.step, diverged_step.position
    self.metrics = RunningMetrics(
      restored.window,
      spike_factor=self.schedule.grad_norm_spike_factor,
      skip_nonfinite=self.metrics.skip_nonfinite,
    )
    # Goodput leaves out the steps since that checkpoint.
    self.counted_seconds = self.watch.seconds(watchdog.STEP)
    self.timer.restart(self.step)
    self.reporter.say(
      f'{diverged_step.why}: rollback {len(rollbacks.made)} of '
      f'{rollbacks.limit}, back to the checkpoint of step {self.step}; '
      'continuing with the data after the batch of step '
      f'{diverged_step.step}'
    )


def _shape_and_place(leaf):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
