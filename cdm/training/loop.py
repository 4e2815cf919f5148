"""The only impure loop: reads data, runs the step, reports, saves, stops.

The device is kept a few steps ahead of the host, and nothing is fetched from
it but where a line is logged or a checkpoint is saved.
"""

import contextlib
import gc
import signal
import time
from typing import Any, NamedTuple

import jax

from cdm.distributed import exit_codes
from cdm.reporting import progress
from cdm.training import step_timer, watchdog
from cdm.training.preemption import Stop
from cdm.training.prefetch import Prefetch
from cdm.training.running_metrics import Diverged, RunningMetrics
from cdm.training.state import make_state


class Outcome(NamedTuple):
  """How a run ended; one that went wrong raises instead."""

  state: Any
  step: int
  ending: exit_codes.ExitCode

  @property
  def exit_code(self):
    """0 if the run is complete, 130 after Ctrl-C, 75 if preempted."""
    return self.ending.code


def start(
  init,
  tx,
  *,
  key,
  abstract,
  checkpointer,
  iterator,
  reporter,
  rollbacks=None,
  grad_norm_spike_factor=0.0,
):
  """Begins a run, or continues it if its work directory has a checkpoint.

  Args:
    init: key -> params.
    tx: optimizer.Optimizer.
    key: typed key of the run; a continued run keeps its own.
    abstract: the state's shapes and places, see sharding.placed.
    checkpointer: checkpoint.Checkpointer.
    iterator: data iterator with get_state and set_state; it is moved to where
      the checkpoint left it, or to where a rollback to it went on.
    reporter: report.Reporter; its record is cut back to the checkpoint.
    rollbacks: rollback.Rollbacks of the work directory, or None.
    grad_norm_spike_factor: see running_metrics.RunningMetrics.

  Returns:
    (TrainState on the mesh, Window): what `train` takes.
  """
  restored = checkpointer.restore_latest(abstract)
  if restored is None:
    state, step = make_state(init, tx, key=key, abstract=abstract), 0
    window = RunningMetrics(spike_factor=grad_norm_spike_factor)
  else:
    state, step = restored.state, restored.step
    window = RunningMetrics(
      restored.window, spike_factor=grad_norm_spike_factor
    )
    skipped = rollbacks.position(step) if rollbacks is not None else None
    iterator.set_state(skipped or restored.data_state)
    reporter.say(f'continuing from the checkpoint of step {step}')
  # Not before: a start that was refused must leave the run as it is.
  if rollbacks is not None:
    rollbacks.resume(step)
  reporter.resume(step)
  checkpointer.write_config()
  return state, window


def train(
  *,
  state,
  step,
  iterator,
  mesh,
  checkpointer,
  reporter,
  num_steps,
  log_every_steps,
  save_every_steps,
  sample_every_steps=0,
  draw_samples=None,
  evaluate_every_steps=0,
  evaluate=None,
  window=None,
  stop=None,
  rollbacks=None,
  grad_norm_spike_factor=0.0,
  watch=None,
  gauges=None,
):
  """Trains from state.step to num_steps, or until asked to stop.

  A run that is stopped, or killed, and started again logs and ends with
  exactly what it would have without.

  Args:
    state: TrainState; donated.
    step: (state, batch) -> (state, scalars), see step.make_step.
    iterator: yields host batches of this process; get_state gives the position
      after the last one. It is read ahead, so afterwards it stands beyond the
      position that was saved.
    mesh: the mesh.
    checkpointer: checkpoint.Checkpointer.
    reporter: report.Reporter.
    num_steps: the step at which the run is complete.
    log_every_steps: a line of scalars, averaged since the line before.
    save_every_steps: a checkpoint; one more at the end.
    sample_every_steps: a picture grid; one more at the end. 0 for none.
    draw_samples: ema_params -> uint8 [H, W, 3], or None for nothing to show.
    evaluate_every_steps: an evaluation; one more at the end. 0 for none.
    evaluate: ema_params -> {name: number}. Reached by `cdm train` once it
      evaluates held-out images during training.
    window: Window of a continued run.
    stop: stop.Stop; by default one that listens to SIGINT and SIGTERM.
    rollbacks: rollback.Rollbacks; None ends the run where it diverges.
    grad_norm_spike_factor: see running_metrics.RunningMetrics.
    watch: watchdog.Watchdog; by default one that reports nothing.
    gauges: function from the rates of a log line to more scalars for it.

  Returns:
    Outcome.

  Raises:
    Diverged: if a loss or a gradient is not finite, or spikes, and no rollback
      is left. Nothing is saved from that step on; the message names the steps.
    exits.DataError: if reading fails; raised from the original.
    OSError: if a checkpoint or report cannot be written.
  """
  if int(state.step) >= num_steps:
    at = int(state.step)
    reporter.say(f'step {at} of {num_steps}: the run is complete')
    return Outcome(state, at, exit_codes.COMPLETE)
  loop = _Loop(
    state,
    RunningMetrics(spike_factor=grad_norm_spike_factor)
    if window is None
    else window,
    step=step,
    checkpointer=checkpointer,
    reporter=reporter,
    num_steps=num_steps,
    log_every_steps=log_every_steps,
    save_every_steps=save_every_steps,
    shows=(
      (sample_every_steps, draw_samples),
      (evaluate_every_steps, evaluate),
    ),
    watch=watchdog.Watchdog() if watch is None else watch,
    gauges=gauges,
  )
  del state  # or a rollback would hold it beside the one it restores
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(Stop() if stop is None else stop)
    stack.enter_context(loop.watch)
    stack.callback(reporter.end_progress)
    while True:
      try:
        with Prefetch(iterator, mesh) as batches:
          return loop.run(batches, stop)
      except Diverged as error:
        if rollbacks is None or not rollbacks.permitted():
          raise
        bad, told = error.bad, str(error)
      # Out of the handler: the traceback would hold the state that diverged.
      loop.roll_back(
        bad, told, iterator, rollbacks, spike_factor=grad_norm_spike_factor
      )


class _Loop:
  """What a run has in its hands between two steps."""

  def __init__(
    self,
    state,
    window,
    *,
    step,
    checkpointer,
    reporter,
    num_steps,
    log_every_steps,
    save_every_steps,
    shows,
    watch,
    gauges,
  ):
    self.gauges = gauges
    self.state, self.window, self.watch = state, window, watch
    self.step, self.checkpointer, self.reporter = step, checkpointer, reporter
    self.num_steps = num_steps
    self.log_every_steps = log_every_steps
    self.save_every_steps = save_every_steps
    (self.sample_every_steps, self.draw_samples), evaluation = shows
    self.evaluate_every_steps, self.evaluate = evaluation
    self.timer = step_timer.Timer()
    self.batch_size = self.data_state = None
    self.at = self.saved = int(state.step)
    self.boundary = self.at
    self.begun = False  # the step is compiled, and progress on show
    self.counted = 0.0  # seconds of steps that the window knows of

  def run(self, batches, stop):
    """Trains until complete, asked to stop, or diverged. -> Outcome."""
    while self.at < self.num_steps:
      if stop.due(self.boundary) or not self.advance(batches, stop):
        break
    complete = self.at == self.num_steps
    if complete and self.at % self.log_every_steps:
      self.log()  # and goes on gathering, should num_steps be raised later
    if self.at > self.saved:
      self.save()
    if complete:
      self.show(final=True)
    self.watch.enter(watchdog.SAVE, self.at)
    self.checkpointer.wait()
    self.watch.enter(None, self.at)
    self.reporter.end_progress()
    if complete:
      return Outcome(self.state, self.at, exit_codes.COMPLETE)
    name = 'preempted'
    if stop.signum is not None:
      name = signal.Signals(stop.signum).name
    self.reporter.say(
      f'{name}: stopped after step {self.at} of {self.num_steps}'
      + (', which is saved' if self.at else '')
      + '; the same command continues from there'
    )
    return Outcome(self.state, self.at, stop.ending)

  def advance(self, batches, stop):
    """Makes a step and what is due after it. False if there is no batch."""
    self.watch.enter(watchdog.DATA, self.at)
    with self.timer.waiting():
      item = batches.next(stop, self.at)
    if item is None:
      return False
    batch, self.data_state = item
    if not self.begun:
      self.reporter.say('compiling the training step ...')
      self.reporter.prepare()
    began = time.monotonic()
    self.watch.enter(watchdog.STEP, self.at)
    self.state, scalars = self.step(self.state, batch)
    self.at += 1
    self.boundary += 1
    self.window.add(self.at, scalars, self.data_state)
    if not self.begun:
      self.begin(batch, scalars, time.monotonic() - began)
    self.reporter.progress(self.at, self.window.latest_loss())
    if self.at % self.log_every_steps == 0:
      self.log()
      self.window.clear()
      self.timer.restart(self.at)
    with self.timer.away():
      # Saved first: what goes wrong while drawing costs no step.
      if self.at % self.save_every_steps == 0:
        self.save()
      self.show()
    return True

  def begin(self, batch, scalars, seconds):
    """After the first step, which compiled: progress is shown from here."""
    self.begun = True
    began = time.monotonic()
    jax.block_until_ready(scalars)
    took = progress.duration(seconds + time.monotonic() - began)
    self.reporter.say(f'first step after {took}')
    # Compiling is no use to the run.
    self.watch.enter(watchdog.LOG, self.at)
    self.counted = self.watch.seconds(watchdog.STEP)
    self.batch_size = jax.tree.leaves(batch)[0].shape[0]
    self.reporter.start_progress(
      total=self.num_steps, step=self.at, unit_size=self.batch_size
    )
    self.timer.restart(self.at)

  def settle(self):
    """Fetches the scalars of every step made; raises Diverged."""
    self.watch.enter(watchdog.STEP, self.at)
    self.window.drain()
    self.watch.enter(watchdog.LOG, self.at)
    self.window.check(self.checkpointer, self.at)
    spent = self.watch.seconds(watchdog.STEP)
    self.window.goodput.add(spent - self.counted)
    self.counted = spent

  def log(self):
    self.settle()
    rates = self.timer.rates(self.at, batch_size=self.batch_size)
    means = self.window.means()
    rates['goodput'] = self.window.goodput.share()
    if self.gauges is not None:
      rates |= self.gauges(rates)
    self.reporter.scalars(self.at, means | rates)
    self.reporter.progress(self.at, means['loss'])

  def save(self):
    self.settle()
    self.watch.enter(watchdog.SAVE, self.at)
    self.checkpointer.save(
      self.at,
      self.state,
      data_state=self.data_state,
      window=self.window.to_json(),
    )
    self.saved = self.at

  def show(self, final=False):
    def due(every, make):
      if make is None or not every or (self.at % every == 0) == final:
        return False
      self.watch.enter(watchdog.SHOW, self.at)
      return True

    if due(self.sample_every_steps, self.draw_samples):
      image = self.draw_samples(self.state.ema_params)
      if image is not None:
        self.reporter.grid(self.at, 'samples', image)
    if due(self.evaluate_every_steps, self.evaluate):
      self.reporter.scalars(self.at, self.evaluate(self.state.ema_params))

  def roll_back(self, bad, told, iterator, rollbacks, *, spike_factor):
    """Goes back to the last scheduled checkpoint and past the bad batch.

    Only checkpoints that every run of this config makes count, and later ones
    are deleted: the run is the same whether it was stopped in between or not.

    Args:
      bad: window.Bad.
      told: the message of Diverged.
      iterator: see `train`.
      rollbacks: rollback.Rollbacks, where it is recorded.
      spike_factor: see running_metrics.RunningMetrics.

    Raises:
      Diverged: if there is no such checkpoint.
    """
    every = self.save_every_steps
    scheduled = [
      s for s in self.checkpointer.steps() if s < bad.step and s % every == 0
    ]
    if not scheduled:
      raise Diverged(told, bad)
    self.watch.enter(watchdog.RESTORE, self.at)
    abstract = jax.tree.map(_shape_and_place, self.state)
    self.state = None  # its memory is needed for the one that is restored
    gc.collect()
    # Deleted before the rollback is recorded: killed in between, the run
    # diverges once more and comes here again.
    self.checkpointer.forget_after(scheduled[-1])
    restored = self.checkpointer.restore_latest(abstract)
    rollbacks.resume(restored.step)
    rollbacks.add(
      to=restored.step, bad=bad.step, why=bad.why, position=bad.position
    )
    iterator.set_state(bad.position)
    self.reporter.resume(restored.step)
    self.state, self.at = restored.state, restored.step
    self.saved, self.data_state = restored.step, bad.position
    self.window = RunningMetrics(restored.window, spike_factor=spike_factor)
    self.counted = self.watch.seconds(watchdog.STEP)  # in vain since then
    self.timer.restart(self.at)
    self.reporter.say(
      f'{bad.why}: rollback {len(rollbacks.made)} of {rollbacks.limit}, back '
      f'to the checkpoint of step {self.at}; going on with the data after the '
      f'batch of step {bad.step}'
    )


def _shape_and_place(leaf):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
