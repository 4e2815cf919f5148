"""Trains the stage of a config in a work directory, from start to end."""

import sys

import jax
import numpy as np

from cdm.checkpointing import reader, writer
from cdm.config import datasets, loader
from cdm.data import class_names
from cdm.distributed import (
  collectives,
  device_mesh,
  exit_codes,
  peer_monitor,
)
from cdm.reporting import crash_reports, metric_writer, session_log
from cdm.training import loop, program, rollback, utilization, watchdog
from cdm.training.label_check import (
  LabelCheckedBatches,
  check_classes,
  check_labels,
)
from cdm.training.preemption import Stop
from cdm.training.sample_grid import make_grid_sampler


def train(c, workdir, *, stop=None):
  """Trains to `c.train.num_steps`, continuing what `workdir` holds.

  How the session ended is added to WORKDIR/sessions.jsonl, with the traceback
  of an error below WORKDIR/failures. A start that is refused for what it was
  given leaves no trace.

  Args:
    c: ConfigDict of one stage.
    workdir: pathlib.Path of the run.
    stop: train.stop.Stop that is listening already, or None.

  Returns:
    Exit code: 0 when complete, 75 when preempted, 130 after Ctrl-C.

  Raises:
    ValueError: the config, the data or the checkpoint cannot be used.
    running_metrics.Diverged: the loss is no longer finite, or spiked.
    exits.DataError: the data could not be read.
    OSError: workdir cannot be written.
  """
  with session_log.Session(workdir, 'train') as session:
    run = _Run(c, workdir, session)
    peer_monitor.call_before_exit(run.ended_by_another)
    try:
      with Stop() if stop is None else stop as asked:
        ending = run.start_to_end(asked)
    except BaseException as error:
      peer_monitor.explain(error)
      run.ended(exit_codes.classify(error), error)
      raise
    finally:
      run.close()
    run.ended(ending)
  return ending.code


class _Run:
  """One session of training, and the record of how it went."""

  def __init__(self, c, workdir, session):
    self._c, self._workdir, self._session = c, workdir, session
    self._begun = False  # writing into the work directory is wanted
    self._watch = self._iterator = None

  def close(self):
    """Ends the threads or processes that read."""
    if self._iterator is not None:
      self._iterator.close()

  def start_to_end(self, stop):
    """Trains. -> exits.Ending."""
    c, workdir = self._c, self._workdir
    made = program.assemble(c)
    built, schedule, mesh = made.built, made.schedule, made.mesh
    source = datasets.open_source(c.train_data)
    check_labels(c, built.net, source)
    trace_loss_and_sampler(c, built, made.state.params)
    draw_samples = make_grid_sampler(c, made)
    print_config_changes(c, workdir)
    iterator = self._iterator = LabelCheckedBatches(
      datasets.training_batches(
        c,
        source,
        seed=program.seed_of(c, program.DATA_SEED),
        rows=device_mesh.local_rows(mesh, schedule.batch_size),
      ),
      built.net.num_classes,
      before_resuming=lambda: check_classes(workdir, source),
    )
    if not reader.complete_steps(workdir):
      iterator.peek()

    with (
      metric_writer.Reporter(
        workdir, active=collectives.is_first()
      ) as reporter,
      writer.Checkpointer(
        workdir,
        config=loader.to_json(c),
        keep=schedule.keep_checkpoints,
        keep_every_steps=schedule.keep_every_steps or None,
        save_every_steps=schedule.save_every_steps,
      ) as checkpointer,
    ):
      print_run_summary(reporter, c, built, made.state.params, source, mesh)
      rollbacks = rollback.Rollbacks(
        workdir,
        limit=schedule.rollback_limit,
        active=collectives.is_first(),
      )
      state, window = loop.start(
        built.method.init,
        made.tx,
        key=made.key,
        abstract=made.state,
        checkpointer=checkpointer,
        iterator=iterator,
        reporter=reporter,
        rollbacks=rollbacks,
        grad_norm_spike_factor=schedule.grad_norm_spike_factor,
      )
      # Not before: a start that was refused must leave the run as it is.
      self._begun = True
      self._session.facts['first_step'] = int(state.step)
      if collectives.is_first():
        class_names.write(workdir, source.class_names)
      self._watch = watchdog.Watchdog(
        factor=schedule.watchdog_factor,
        seconds=schedule.watchdog_seconds,
        report=lambda text, hangs: report_hang(reporter, workdir, text, hangs),
      )
      outcome = loop.train(
        state=state,
        step=made.step,
        iterator=iterator,
        mesh=mesh,
        checkpointer=checkpointer,
        reporter=reporter,
        num_steps=schedule.num_steps,
        log_every_steps=schedule.log_every_steps,
        save_every_steps=schedule.save_every_steps,
        sample_every_steps=schedule.sample_every_steps,
        draw_samples=draw_samples,
        window=window,
        stop=stop,
        rollbacks=rollbacks,
        grad_norm_spike_factor=schedule.grad_norm_spike_factor,
        watch=self._watch,
        gauges=utilization.make_utilization(built, built.input_size, mesh),
      )
      self._session.facts['last_step'] = outcome.step
    # Launchers end what is left when the first is gone: none may be saving.
    collectives.barrier('the end of training')
    return outcome.ending

  def ended(self, ending, error=None):
    """Records how the session ended, unless its start was refused."""
    refused = ending is exit_codes.BAD_INPUT and not self._begun
    if refused or not self._speaks_of(ending):
      self._session.forget()
      return
    if error is None:
      self._note(ending)
      return
    last, path = self._keep(
      ending, exit_codes.sentence(error), crash_reports.whole_traceback(error)
    )
    where = f'; the whole traceback: {path}' if path else ''
    exit_codes.annotate(error, f'{ending.kind}, {last}{where}')

  def _note(self, ending):
    self._session.facts |= {'ended': ending.kind, 'exit_code': ending.code}

  def _keep(self, ending, sentence, details):
    """Notes a failure, and keeps it. -> (when it came, path or None)."""
    self._note(ending)
    last = 'before the first step'
    if self._watch is not None:
      self._session.facts['last_step'] = self._watch.step
      last = f'after step {self._watch.step}'
    name = ending.kind.replace(' ', '-')
    if not collectives.is_first():
      name += f'-process-{jax.process_index()}'
    text = f'{ending.kind}, {last}: {sentence}\n\n{details}'
    return last, crash_reports.write_crash_report(self._workdir, name, text)

  def _speaks_of(self, ending):
    """Whether this process records it: the first, or the only one to know."""
    alone = (exit_codes.DATA_ERROR, exit_codes.OUT_OF_MEMORY, exit_codes.FAULT)
    return collectives.is_first() or ending in alone

  def ended_by_another(self, ending, sentence):
    """Records that another process failed; called before this one is ended."""
    if ending is exit_codes.BAD_INPUT and not self._begun:
      return  # refused: it leaves no trace
    if collectives.is_first():
      self._keep(ending, sentence, crash_reports.stacks())
      self._session.write()


def report_hang(reporter, workdir, text, hangs):
  """Says what the watchdog found, with stacks where something hangs."""
  if not hangs:
    reporter.say(text)
    return
  stacks = crash_reports.stacks()
  path = None
  if collectives.is_first():
    path = crash_reports.write_crash_report(
      workdir, 'watchdog', f'{text}\n\n{stacks}'
    )
  reporter.say(f'{text}. Stacks of all threads{f" ({path})" if path else ""}:')
  print(stacks, file=sys.stderr, flush=True)


def trace_loss_and_sampler(c, built, params):
  """Traces loss and sampler without running them.

  What is wrong with their options is found now and not after hours: samples
  are first drawn, and the first step compiled, long after the start.
  """
  size, n = c.pipeline.image_size, 2
  given = {}
  if built.net.num_classes is not None:
    given['label'] = jax.ShapeDtypeStruct((n,), np.int32)
  if built.lowres is not None:
    low = (n, built.lowres.size, built.lowres.size, 3)
    given['lowres'] = jax.ShapeDtypeStruct(low, np.float32)
  if built.method.sample is not None:
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), n))
    jax.eval_shape(built.method.sample, params, keys=keys, **given)
  batch = {
    'image': jax.ShapeDtypeStruct((n, size, size, 3), np.uint8),
    'label': jax.ShapeDtypeStruct((n,), np.int32),
  }
  key = jax.eval_shape(lambda: jax.random.key(0))
  jax.eval_shape(
    lambda p, b, k: built.method.loss(p, b, key=k, train=True),
    params,
    batch,
    key,
  )


def print_config_changes(c, workdir):
  """Says which values differ from those the run was last started with."""
  path = workdir / reader.CONFIG
  if not path.exists():
    return
  before = loader.from_json(path.read_text(), path)
  for line in loader.changes(before, c):
    print(f'changed since the last start: {line}')


def print_run_summary(reporter, c, built, params, source, mesh):
  """Says in two lines what is about to be trained, on what and where."""
  parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
  size = f'{c.pipeline.image_size} px'
  if built.lowres is not None:
    size = f'{built.lowres.size} -> {size}'
  reporter.say(
    f'{c.name}: {size}, {parameters:,} parameters, {built.net.dtype} on '
    f'{mesh.size} {jax.devices()[0].platform} device'
    + ('s' if mesh.size > 1 else '')
  )
  classes = f', {source.num_classes} classes' if source.num_classes else ''
  reporter.say(f'data: {len(source):,} images{classes} ({c.train_data.kind})')
