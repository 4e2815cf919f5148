"""Trains one stage in a work directory: `cdm train`, from config to exit code.

It builds what the loop needs, starts or continues the run, and records how the
session ended.
"""

from __future__ import annotations

import functools
import pathlib
import sys
from typing import TYPE_CHECKING

import jax

from cdm.checkpointing import (
  folder_rename,
  local_copies,
  reader,
  writer,
)
from cdm.config import class_agreement, datasets, loader
from cdm.data import class_names
from cdm.data.files import atomic_files
from cdm.distributed import (
  collectives,
  device_mesh,
  exit_codes,
  folder_lock,
  notice_board,
  peer_monitor,
  replica_comparison,
  user_cache,
)
from cdm.reporting import (
  bucket_mirror,
  crash_reports,
  metric_writer,
  parameter_table,
  session_log,
  wandb_writer,
)
from cdm.training import (
  collapse,
  disk_space,
  evaluators,
  hang,
  hooks,
  host_spread,
  init_from,
  label_check,
  log_line,
  loop,
  profile_steps,
  program,
  restarts,
  rollback,
  run_summary,
  snapshots,
  start,
  teacher,
  utilization,
  wandb_project,
  watchdog,
)
from cdm.training.collaborators import compared_part
from cdm.training.preemption import Stop
from cdm.training.sample_grid import make_grid_sampler

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict

# For the upload of the last records when another process has failed.
PEER_FAILURE_S = 5.0


def train(
  c: ConfigDict,
  workdir: pathlib.Path,
  *,
  stop: Stop | None = None,
  make_fid: evaluators.MakeFid | None = None,
) -> int:
  """Trains to `c.train.num_steps`, from the newest checkpoint in `workdir`.

  It adds one line to WORKDIR/sessions.jsonl that says how the session ended,
  and writes the traceback of an error into WORKDIR/failures. A start that is
  refused because of its config, data or checkpoint leaves no trace. One run at
  a time holds the work directory, see `folder_lock`.

  Args:
    c: config of one stage.
    workdir: work directory of the run.
    stop: the handler of signals, if one is installed already; by default a new
      one is.
    make_fid: builds the evaluation of FID, see `evaluators.make_evaluators`.

  Returns:
    Exit code: 0 when complete, 75 when preempted, 130 after Ctrl-C.

  Raises:
    ValueError: if the config, the data or the checkpoint cannot be used.
    running_metrics.Diverged: if the loss or the gradient norm is no longer
      finite, or spiked, and no rollback is left.
    exit_codes.DataError: if the data cannot be read.
    folder_lock.FolderInUse: if another run trains in workdir.
    OSError: if workdir cannot be written.
  """
  stop = Stop() if stop is None else stop
  c = teacher.resolved(c, workdir)
  holding = folder_lock.hold(
    workdir, 'cdm train', flag='--workdir', asked_to_end=stop.asked_to_end
  )
  with (
    stop,
    holding,
    bucket_mirror.mirrored(workdir) as upload,
    session_log.Session(workdir, 'train') as session,
  ):
    run = _Run(c, workdir, session, make_fid, upload)
    peer_monitor.call_before_exit(run.record_peer_failure)
    try:
      ending = run.start_to_end(stop)
    except BaseException as error:
      peer_monitor.explain(error)
      run.record_end(exit_codes.classify(error), error)
      raise
    finally:
      run.close()
    run.record_end(ending)
  return ending.code


class _Run:
  """One session of training, and the record of how it went."""

  def __init__(self, c, workdir, session, make_fid, upload):
    self._upload = upload  # of the records, if the run is in a bucket
    self._c, self._workdir, self._session = c, workdir, session
    self._make_fid = make_fid
    self._started = False  # the start was not refused, so it leaves a record
    self._watch = self._iterator = self._snapshots = None
    self._restarts: restarts.Restarts | None = None
    self._say = functools.partial(print, file=sys.stderr, flush=True)

  def close(self):
    """Ends the threads or processes that read data."""
    if self._iterator is not None:
      self._iterator.close()

  def start_to_end(self, stop):
    """Trains until complete or stopped. Returns an exit_codes.ExitCode."""
    assembled = program.assemble(self._c)
    watch = self._make_watchdog(assembled.schedule)
    with watch:
      watch.enter(watchdog.START, 0)
      peer_monitor.send_heartbeat_while(lambda: not watch.hangs())
      self._open_restarts(assembled.schedule)
      try:
        return self._train(assembled, watch, stop)
      finally:
        # Errors too wait for a checkpoint that is being saved.
        watch.enter(watchdog.END, watch.step)

  def _train(self, assembled, watch, stop):
    """Opens what the run needs and trains. Returns an exit_codes.ExitCode."""
    c, workdir = self._c, self._workdir
    built, schedule = assembled.built, assembled.schedule
    wandb_writer.check_installed(schedule.wandb)
    folder_rename.check(workdir)
    source = datasets.open_in_all(c.train_data, workdir=workdir)
    class_agreement.check_training(c, built.net.num_classes, source)
    begun = init_from.find_start(c, workdir, assembled, source)
    c = begun.config
    evaluated = evaluators.with_training_classes(c, assembled, source)
    program.trace_loss_and_sampler(c, built, assembled.state.params)
    draw_samples = make_grid_sampler(evaluated, assembled)
    evaluations = evaluators.make_evaluators(
      evaluated, assembled, workdir, self._make_fid
    )
    run_summary.print_config_changes(c, workdir)
    iterator = self._open_batches(assembled, source)

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
        before_commit=self._finish_records,
        retry_seconds=60 * schedule.save_retry_minutes,
      ) as checkpointer,
      profile_steps.Profile(
        schedule.profiled_steps, workdir, say=reporter.say
      ) as profile,
    ):
      self._say = reporter.say
      wandb_project.add(reporter, c, workdir)
      run_summary.print_run_summary(reporter, c, assembled, source)
      warning = disk_space.shortage(
        workdir,
        assembled.state,
        schedule,
        checkpointer.steps(),
        keeps_best=bool(assembled.evaluation.best),
        snapshots=assembled.snapshots,
      )
      for line in (*begun.lines, warning or ''):
        if line:
          reporter.say(line)
      rollbacks = rollback.Rollbacks(
        workdir,
        limit=schedule.rollback_limit,
        active=collectives.is_first(),
      )
      self._remove_abandoned()
      collaborators = loop.Collaborators(
        iterator=iterator,
        checkpointer=checkpointer,
        reporter=reporter,
        rollbacks=rollbacks,
        watch=watch,
        comparison=self._make_comparison(assembled),
        local_copies=self._make_local_copies(schedule),
        snapshots=self._open_snapshots(assembled, c),
      )
      state, metrics = start.start(
        built.method.init,
        assembled.tx,
        key=assembled.key,
        abstract=assembled.state,
        schedule=schedule,
        collaborators=collaborators,
        read_weights=None if begun.weights is None else begun.weights.read,
        read_frozen=teacher.frozen_reader(c),
      )
      # From here on the start is not refused any more. A start that is refused
      # must leave the run unchanged.
      self._started = True
      self._count_start(int(state.step))
      self._session.facts['first_step'] = int(state.step)
      if collectives.is_first():
        class_names.write(workdir, source.class_names)
        parameter_table.write(workdir, assembled.state.params)
      self._watch = watch
      line = self._log_line(assembled, len(source), reporter)
      outcome = loop.train(
        state,
        metrics,
        step=assembled.step,
        mesh=assembled.mesh,
        schedule=schedule,
        collaborators=collaborators,
        hooks=hooks.Hooks(
          draw_samples=draw_samples,
          gauges=line.gauges,
          after_line=collapse.Watch(c.name, reporter.say).add,
          first_step=line.first_step,
          update=profile.update,
          evaluations=evaluations,
          best=evaluators.make_best(assembled, checkpointer, reporter),
        ),
        stop=stop,
      )
      self._session.facts['last_step'] = outcome.step
      watch.enter(watchdog.END, outcome.step)
    # Launchers end the other processes when the first one has ended; by then
    # none may still be saving.
    collectives.barrier('the end of training')
    return outcome.ending

  def _remove_abandoned(self):
    """Removes the half-written files of a run that was killed."""
    if collectives.is_first():
      # In a bucket the folder of the checkpoints does not exist in the mirror.
      for name in ('', metric_writer.GRIDS, reader.CHECKPOINTS):
        atomic_files.remove_abandoned(self._workdir / name)

  def _open_restarts(self, schedule):
    """Counts this start, unless it is the first, which may be refused yet."""
    workdir = self._workdir
    self._restarts = restarts.Restarts(
      workdir, schedule.restart_limits, active=collectives.is_first()
    )
    records = (restarts.FILE, session_log.FILE)
    if any((workdir / name).exists() for name in records):
      self._count_start(max(reader.complete_steps(workdir), default=0))

  def _count_start(self, step):
    """Counts this start, once; raises if there were too many before."""
    assert self._restarts is not None
    self._restarts.begin(step)
    self._upload_records()

  def _upload_records(self):
    """Uploads the records that a checkpoint of a bucket continues."""
    if self._upload is not None:
      self._upload.flush(bucket_mirror.END_S, events=False)

  def _open_snapshots(self, assembled, c):
    """Returns what writes snapshots; None if the config asks for none."""
    self._snapshots = snapshots.open_writer(self._workdir, assembled, c)
    return self._snapshots

  def _finish_records(self):
    """Brings out what a run that continues from a checkpoint will not redo."""
    if self._snapshots is not None:
      self._snapshots.finish_writing()
    self._upload_records()

  def _open_batches(self, assembled, source):
    """Opens the training batches, and reads one unless the run continues."""
    c, workdir, built = self._c, self._workdir, assembled.built
    self._iterator = label_check.LabelCheckedBatches(
      datasets.training_batches(
        c,
        source,
        seed=program.seed_of(c, program.DATA_SEED),
        rows=device_mesh.local_rows(
          assembled.mesh, assembled.schedule.batch_size
        ),
      ),
      built.net.num_classes,
      before_resuming=lambda: label_check.check_same_data(workdir, c, source),
    )
    if not reader.agreed_steps(workdir):
      self._iterator.peek()
    return self._iterator

  def _make_comparison(self, assembled):
    """Returns what compares the devices; None if the config asks for none."""
    if not assembled.schedule.compare_every_steps:
      return None
    return replica_comparison.ReplicaComparison(
      compared_part(assembled.state), assembled.mesh
    )

  def _make_local_copies(self, schedule):
    """Returns the local copies of the run; None if the config asks for none."""
    if not schedule.local_copy_every_minutes:
      return None
    return local_copies.LocalCopies(
      schedule.local_copy_dir or user_cache.local_folder('local_copies'),
      self._workdir,
      before_write=self._finish_records,
    )

  def _make_watchdog(self, schedule):
    return watchdog.Watchdog(
      factor=schedule.watchdog_factor,
      seconds=schedule.watchdog_seconds,
      report=lambda text, hangs: hang.report_slow_phase(
        self._say, self._workdir, text, hangs
      ),
      hang=hang.limits(
        schedule,
        processes=jax.process_count(),
        end=lambda text: hang.end_process(text, self._record_hang),
      ),
    )

  def _record_hang(self, text, stacks):
    """Records that this process hangs, before it is ended."""
    self._write_crash_report(exit_codes.NO_PROGRESS, text, stacks)
    self._session.write()
    bucket_mirror.flush_all(PEER_FAILURE_S)

  def _log_line(self, assembled, num_images, reporter):
    built, mesh = assembled.built, assembled.mesh
    board, spread = notice_board.open_board('log_line'), None
    if board is not None:
      spread = host_spread.HostSpread(board, jax.process_index(), reporter.say)
    return log_line.LogLine(
      batch_size=assembled.schedule.batch_size,
      num_images=num_images,
      utilization=utilization.make_utilization(built, mesh),
      facts=self._session.facts,
      spread=spread,
    )

  def record_end(self, ending, error=None):
    """Records how the session ended, unless its start was refused."""
    refused = ending is exit_codes.BAD_INPUT and not self._started
    if self._restarts is not None:
      if refused:
        self._restarts.forget()
      else:
        self._restarts.end(ending)
    if refused or not self._records(ending):
      self._session.forget()
      return
    if error is None:
      self._add_facts(ending)
      return
    last, path = self._write_crash_report(
      ending, exit_codes.sentence(error), crash_reports.whole_traceback(error)
    )
    where = f'; the whole traceback: {path}' if path else ''
    exit_codes.annotate(error, f'{ending.kind}, {last}{where}')

  def _add_facts(self, ending):
    self._session.facts |= {'ended': ending.kind, 'exit_code': ending.code}

  def _write_crash_report(self, ending, sentence, details):
    """Writes a crash report, and adds the failure to the session's facts.

    Returns (when it happened, in words; path of the report, or None if it
    could not be written).
    """
    self._add_facts(ending)
    last = 'before the first step'
    if self._watch is not None:
      self._session.facts['last_step'] = self._watch.step
      last = f'after step {self._watch.step}'
    name = ending.kind.replace(' ', '-')
    if not collectives.is_first():
      name += f'-process-{jax.process_index()}'
    text = f'{ending.kind}, {last}: {sentence}\n\n{details}'
    return last, crash_reports.write_crash_report(self._workdir, name, text)

  def _records(self, ending):
    """Returns whether this process records how the session ended.

    Process 0 always does; any other process does if it may be the only one
    that knows of the error.
    """
    alone = (
      exit_codes.DATA_ERROR,
      exit_codes.NO_STORAGE,
      exit_codes.OUT_OF_MEMORY,
      exit_codes.FAULT,
    )
    return collectives.is_first() or ending in alone

  def record_peer_failure(self, ending, sentence):
    """Records that another process failed, before this process is ended."""
    refused = ending is exit_codes.BAD_INPUT and not self._started
    if collectives.is_first() and not refused:  # That leaves no trace.
      self._write_crash_report(ending, sentence, crash_reports.stacks())
      self._session.write()
      if self._restarts is not None:
        self._restarts.end(ending)
      bucket_mirror.flush_all(PEER_FAILURE_S)
    folder_lock.release_all()
