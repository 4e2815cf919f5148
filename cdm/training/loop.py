"""Runs the training loop: reads data, makes steps, logs, saves and stops.

The host runs a few steps ahead of the device. It waits for the last step only
when a checkpoint is saved or images are evaluated: a log line is written when
the steps after it are on their way, so that the device is never without work.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import time
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import jax

from cdm.distributed import collectives, exit_codes
from cdm.reporting import progress
from cdm.training import frozen_state, state_saver, watchdog
from cdm.training.collaborators import Collaborators
from cdm.training.hooks import GRID, Hooks
from cdm.training.line_queue import LineQueue
from cdm.training.outcome import Outcome
from cdm.training.preemption import Stop
from cdm.training.prefetch import Prefetch
from cdm.training.rollback import Rollbacks, latest_scheduled
from cdm.training.running_metrics import (
  MAX_IN_FLIGHT,
  Diverged,
  DivergedStep,
  RunningMetrics,
)
from cdm.training.state import (
  TrainState,
  abstract_of,
)

if TYPE_CHECKING:
  from cdm.training.run_config import Run


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
  reporter, rollbacks = collaborators.reporter, collaborators.rollbacks
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
    caught_up = loop.catch_up(stop)
    if loop.step >= schedule.num_steps:
      return loop.end(stop, complete=caught_up, new=False)
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
    self.lines = LineQueue(self.reporter, hooks)
    self.timer = self.lines.timer
    self.saver = state_saver.StateSaver(collaborators, schedule)
    self.data_state: Any = None  # data position after the last step's batch
    self.step = self.saved_step = int(state.step)  # number of updates made
    self.boundary = 0  # grows by one from call to call of `Stop.due`
    self.compiled = False  # the first step is made, and progress is shown
    # Seconds of the phase STEP that goodput has counted, or must not count.
    self.counted_seconds = 0.0

  def run(self, batches, stop):
    """Trains until the run is complete or asked to stop. Returns the Outcome.

    Raises Diverged if a step diverged.
    """
    try:
      while self.step < self.schedule.num_steps:
        if self.stop_asked(stop) or not self.run_step(batches, stop):
          break
    except exit_codes.DataError:
      with contextlib.suppress(Diverged):
        self.write_lines(up_to=self.step)  # The steps before were good.
      raise
    complete = self.step == self.schedule.num_steps
    self.fetch_scalars()
    if complete and self.step % self.schedule.log_every_steps:
      # The sums are kept: if num_steps is raised later, the next regular line
      # averages over all steps since the last regular one.
      self.log(self.step, self.lines.rates(self.step, self.metrics))
    if self.step > self.saved_step:
      self.save()
    if complete:
      complete = self.draw_and_evaluate(stop)
    return self.end(stop, complete)

  def end(self, stop, complete, new=True):
    """Waits for the last checkpoint, and reports the end. Returns the Outcome.

    Args:
      stop: tells why the run ends if it is not complete.
      complete: whether all steps and evaluations are made.
      new: whether a step was made.
    """
    self.watch.enter(watchdog.SAVE, self.step)
    self.checkpointer.wait()
    while (pause := self.checkpointer.last_pause()) is not None:
      time.sleep(pause)
      self.save()
      self.checkpointer.wait()
    self.saver.finish_snapshots()
    self.watch.enter(None, self.step)
    self.reporter.end_progress()
    place = f'step {self.step} of {self.schedule.num_steps}'
    if complete:
      self.saver.forget_copies()  # The run needs none any more.
      if not new:
        self.reporter.say(f'{place}: the run is complete')
      return Outcome(self.state, self.step, exit_codes.COMPLETE)
    name = 'preempted'
    if stop.signum is not None:
      name = signal.Signals(stop.signum).name
    self.reporter.say(
      f'{name}: stopped after {place}'
      + (', which is saved' if self.step else '')
      + '; the same command continues from there'
    )
    return Outcome(self.state, self.step, stop.ending)

  def stop_asked(self, stop):
    """Returns whether to save and end; a collective, see `Stop.due`."""
    self.boundary += 1
    self.watch.show_life()  # A long evaluation asks between its batches.
    return stop.due(self.boundary)

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
    self.metrics.add(self.step, scalars, self.data_state)
    if not self.compiled:
      self.report_first_step(batch, scalars, time.monotonic() - began)
    self.saver.compare_if_due(self.step, self.state)
    if self.step % self.schedule.log_every_steps == 0:
      self.lines.add(self.step, self.metrics)
    # So late the scalars of a step are there, and fetching them does not wait.
    self.write_lines(up_to=self.step - MAX_IN_FLIGHT)
    self.reporter.progress(self.step, self.metrics.latest_loss())
    due = self.saver.due(self.step)
    if due is not None:
      self.fetch_scalars()  # This is no time away: steps are being made.
    with self.timer.away():
      if self.saver.snapshot_is_due(self.step):
        self.save(state_saver.SNAPSHOT)
      # The checkpoint is saved first, so that an error while drawing loses no
      # step.
      if due is not None:
        self.save(due)
      if self.step < self.schedule.num_steps:  # else once all is saved
        self.draw_and_evaluate(stop)
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
    self.lines.batch_size = size = jax.tree.leaves(batch)[0].shape[0]
    self.reporter.start_progress(
      total=self.schedule.num_steps, step=self.step, unit_size=size
    )
    self.timer.restart(self.step)

  def fetch_scalars(self):
    """Writes the lines that are due and fetches the scalars of every step made.

    Raises Diverged if one of the steps diverged.
    """
    self.write_lines(up_to=self.step)
    self.drain(self.step)

  def write_lines(self, up_to):
    """Writes the log lines that are due up to a step.

    Raises Diverged if a step of a line diverged.
    """
    while (line := self.lines.pop(up_to)) is not None:
      step, rates = line
      self.drain(step)
      self.log(step, rates)
      self.metrics.clear()

  def drain(self, step):
    """Fetches the scalars up to a step, and adds its time to goodput.

    Raises Diverged if one of the steps diverged, and ReplicasDiffer if a
    comparison that was started has found a difference.
    """
    self.watch.enter(watchdog.STEP, self.step)
    self.metrics.drain(up_to=step)
    self.watch.enter(watchdog.LOG, self.step)
    self.metrics.check(self.checkpointer, self.step)
    self.saver.finish_comparison()
    spent = self.watch.seconds(watchdog.STEP)
    self.metrics.goodput.add(spent - self.counted_seconds)
    self.counted_seconds = spent

  def log(self, step, rates):
    """Writes the log line of a step whose scalars are fetched."""
    loss = self.lines.write(step, rates, self.metrics)
    self.reporter.progress(self.step, loss)

  def save(self, kind=state_saver.SAVE):
    """Writes one of the kinds of `StateSaver.write`, once nothing is wrong."""
    self.saver.start_comparison(self.step, self.state)
    self.fetch_scalars()
    self.watch.enter(watchdog.SAVE, self.step)
    self.saver.write(
      kind,
      self.step,
      self.state,
      data_state=self.data_state,
      window=self.metrics.to_json(),
    )
    if kind == state_saver.SAVE:
      self.saved_step = self.step

  def due(self, every_steps):
    """Returns whether what has this interval is due now; 0 never is."""
    last = self.step == self.schedule.num_steps
    return every_steps > 0 and (self.step % every_steps == 0 or last)

  def draw_and_evaluate(self, stop, made: Container[str] = ()):
    """Draws and evaluates what is due at this step and not yet made.

    Returns False if the run was asked to stop before all was made.
    """
    hooks, every = self.hooks, self.schedule.sample_every_steps
    draws = hooks.draw_samples is not None and GRID not in made
    if draws and self.due(every):
      self.watch.enter(watchdog.SHOW, self.step)
      image = hooks.draw_samples(self.state.ema_params)
      if image is not None:
        self.reporter.grid(self.step, GRID, image)
    due = [e for e in hooks.evaluations if self.due(e.every_steps)]
    due = [evaluator for evaluator in due if evaluator.name not in made]
    if due and hooks.best is not None and self.step > self.saved_step:
      self.save()  # Any evaluated step may be the best.
    for evaluator in due:
      self.fetch_scalars()  # A state that has diverged is not evaluated.
      if not self.evaluate(evaluator, stop):
        return False
    return True

  def evaluate(self, evaluator, stop):
    """Makes an evaluation; returns False if the run was asked to stop."""
    began = time.monotonic()
    self.watch.enter(f'{watchdog.EVALUATE} {evaluator.name}', self.step)
    state = self.state
    frozen = frozen_state.of(state) if evaluator.uses_frozen else {}
    values = evaluator.run(
      state.params, state.ema_params, lambda: self.stop_asked(stop), **frozen
    )
    self.watch.enter(watchdog.LOG, self.step)
    self.metrics.goodput.add_evaluation(time.monotonic() - began)
    if values is None:
      return False
    self.reporter.scalars(self.step, values)
    best = self.hooks.best
    if best is not None and not best.consider(self.step, values):
      self.save()  # once more, because it failed; any state may be the best
      best.consider(self.step, values)
    if evaluator.forget is not None:
      evaluator.forget()
    return True

  def catch_up(self, stop):
    """Makes what was due at the restored step when the run was killed.

    Returns False if the run was asked to stop before all was made.
    """
    if self.hooks.best is not None:
      self.hooks.best.resume(self.step)
    if not self.step:
      return True
    made = {
      name
      for row in self.reporter.rows(since=self.step)
      if row['step'] == self.step
      for name in row
    }
    if self.reporter.has_grid(self.step, GRID):
      made.add(GRID)
    # Process 0, which has the record, tells the others.
    made = collectives.gather_objects(sorted(made))[0]
    return self.draw_and_evaluate(stop, made)

  def roll_back(
    self,
    diverged_step: DivergedStep,
    message: str,
    rollbacks: Rollbacks,
  ) -> None:
    """Goes back to the last scheduled checkpoint and skips the diverged data.

    Later checkpoints are deleted.

    Args:
      diverged_step: the step that diverged.
      message: of the Diverged error.
      rollbacks: where this rollback is recorded.

    Raises:
      Diverged: if there is no such checkpoint.
    """
    to = latest_scheduled(
      self.checkpointer.steps(),
      before=diverged_step.step,
      every=self.schedule.save_every_steps,
    )
    if to is None:
      raise Diverged(message, diverged_step)
    self.lines.clear()
    self.watch.enter(watchdog.RESTORE, self.step)
    abstract = abstract_of(self.state)
    self.state = None  # Its memory is needed for the state that is restored.
    gc.collect()
    # The checkpoints are deleted before the rollback is recorded: a run that is
    # killed in between diverges once more and rolls back again.
    self.saver.forget_after(to)
    self.checkpointer.forget_after(to)
    restored = self.checkpointer.restore_latest(abstract)
    self.saver.start_comparison(restored.step, restored.state)
    self.saver.finish_comparison()
    rollbacks.resume(restored.step)
    rollbacks.add(
      to=restored.step,
      diverged_step=diverged_step.step,
      why=diverged_step.why,
      position=diverged_step.position,
    )
    self.iterator.set_state(diverged_step.position)
    self.reporter.resume(restored.step)
    if self.hooks.best is not None:
      self.hooks.best.resume(restored.step)
    self.state, self.step = restored.state, restored.step
    self.saved_step, self.data_state = restored.step, diverged_step.position
    self.metrics = self.metrics.continued(restored.window)
    # Goodput leaves out the steps since that checkpoint.
    self.counted_seconds = self.watch.seconds(watchdog.STEP)
    self.timer.restart(self.step)
    self.reporter.say(
      f'{diverged_step.why}: rollback {len(rollbacks.made)} of '
      f'{rollbacks.limit}, back to the checkpoint of step {self.step}; going '
      f'on with the data after the batch of step {diverged_step.step}'
    )
