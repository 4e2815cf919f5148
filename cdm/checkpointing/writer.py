"""Saves and restores the checkpoints of a training run.

A checkpoint holds the training state, the data position, the sums of the log
window and the config, always together. The work directory contains:

  config.json               the config of the run, for people to read
  checkpoints/<step>/state  TrainState, written by Orbax
                    /data   position of the data iterator after that step
                    /window sums of the log line that was not yet complete
                    /config the config that this checkpoint was made with
                    /checksums.json        of every file in the four folders
                    /_CHECKPOINT_METADATA  its format, the commit of the program
                                           and the packages that saved
             /best        step and metric of the best checkpoint, as JSON
  checkpoints_damaged/      unreadable checkpoints, moved here, never deleted

A checkpoint appears whole or not at all: it is written in the background under
a temporary name and renamed when all of its bytes and checksums are on disk
(`background_save`).
"""

import contextlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Self

import jax
from etils import epath

from cdm.checkpointing import (
  background_save,
  half_written,
  orbax_output,
  preservation,
  reader,
  save_series,
  single_files,
  state_arrays,
  stored_format,
  verification,
  write_errors,
)
from cdm.data.files import (
  atomic_files,
  damaged_file,
  storage_retry,
  transient_errors,
)
from cdm.distributed import collectives

DAMAGED = 'checkpoints_damaged'

_log = logging.getLogger(__name__)


class Restored(NamedTuple):
  """The contents of a checkpoint.

  Attributes:
    step: number of updates made.
    state: TrainState.
    data_state: position of the data iterator, as JSON values.
    window: sums of the unfinished log line, as a dict of JSON values; {} if
      there were none.
  """

  step: int
  state: Any
  data_state: Any
  window: Any


class Checkpointer:
  """Saves and restores the checkpoints of one work directory.

  Saves run in the background, so use this class as a context manager, or call
  `close` at the end.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    config: str | None = None,
    keep: int = 3,
    keep_every_steps: int | None = None,
    save_every_steps: int | None = None,
    before_commit: Callable[[], None] = lambda: None,
    retry_seconds: float = 0.0,
  ) -> None:
    """Opens the work directory of a training run and makes it if needed.

    Args:
      workdir: path of the work directory.
      config: the config as JSON text, saved with every checkpoint.
      keep: number of newest checkpoints to keep.
      keep_every_steps: checkpoints at multiples of this step are kept for
        good; 0 or None keeps none of them.
      save_every_steps: the newest checkpoint at a multiple of this step is
        kept too, so that the checkpoints that a stopped run saves at other
        steps cannot displace it.
      before_commit: called in process 0, in a thread, when a checkpoint is
        written and before it counts as complete.
      retry_seconds: for so long saves may fail before one raises an error; 0
        raises at once.

    Raises:
      OSError: the directory cannot be written.
    """
    orbax_output.silence()
    self._workdir = pathlib.Path(workdir).absolute()
    self._folder = reader.folder(workdir)
    self._config = config
    with self._writing('a checkpoint'):
      self._folder.mkdir(parents=True, exist_ok=True)
      _check_writable(self._folder)
      if collectives.is_first():
        half_written.remove(self._folder)
    collectives.barrier('half-written checkpoints are removed')
    self._preservation = preservation.Preservation(
      keep, keep_every_steps, save_every_steps, self._best_step()
    )
    self._saves = save_series.SaveSeries(
      self._folder,
      reader.agreed_steps(self._workdir),
      self._preservation,
      before_commit=before_commit,
      retry_seconds=retry_seconds,
    )

  def save(
    self,
    step: int,
    state: Any,
    *,
    data_state: Any,
    window: Mapping[str, object] | None = None,
  ) -> None:
    """Starts to save a checkpoint, which continues in the background.

    The state may be donated as soon as this method returns.

    Args:
      step: number of updates made.
      state: TrainState.
      data_state: position of the data iterator after the batches that the
        state has consumed, as JSON values. It is the same on every process.
      window: sums of the unfinished log line, as JSON values.

    Raises:
      OSError: saves have failed for longer than they may. Older checkpoints
        remain whole.
    """
    content = background_save.Content(
      state,
      {
        'data': {'position': data_state},
        'window': {'sums': window or {}},
        'config': {'text': self._config},
      },
      {'custom_metadata': stored_format.made_by()},
    )
    self._saves.start(step, content)

  def wait(self) -> None:
    """Waits until the save that `save` has started is complete or has failed.

    Raises:
      OSError: saves have failed for longer than they may.
    """
    self._saves.wait()

  def retry_is_due(self) -> bool:
    """See `save_series.SaveSeries.retry_is_due`."""
    return self._saves.retry_is_due()

  def last_pause(self) -> float | None:
    """See `save_series.SaveSeries.last_pause`."""
    return self._saves.last_pause()

  @property
  def _place(self) -> epath.Path:
    """The work directory, for error messages."""
    return self._folder.parent

  def latest_step(self) -> int | None:
    """Returns the step of the newest checkpoint, or None if there is none."""
    return max(self.steps(), default=None)

  def steps(self) -> list[int]:
    """Returns the steps of the checkpoints, in ascending order.

    They are the same in all processes.
    """
    return list(self._saves.steps)

  def forget_after(self, step: int) -> None:
    """Deletes the checkpoints of later steps, which the run will redo."""
    self._saves.forget_after(step)
    if (self._preservation.best_step or 0) > step:
      self.keep_best(None)

  def keep_best(self, best: reader.Best | None) -> None:
    """Keeps a checkpoint as the best one, and no longer the one before.

    Every process must call it, with the same value. Process 0 writes
    checkpoints/best, or removes it.

    Args:
      best: the checkpoint, which is complete; None if there is none.
    """
    self._preservation.best_step = None if best is None else best['step']
    if not collectives.is_first():
      return
    path = self._folder / reader.BEST
    with self._writing(reader.BEST):
      if best is None:
        path.unlink(missing_ok=True)
      else:
        single_files.write_text(path, json.dumps(best) + '\n')

  def _best_step(self) -> int | None:
    """Returns the step of the best checkpoint, None if none is on record."""
    try:
      best = collectives.call_in_first(
        lambda: reader.read_best(self._workdir),
        errors=(damaged_file.DamagedFile,),
      )
    except damaged_file.DamagedFile as error:
      _log.warning('%s', error)
      return None
    return None if best is None else best['step']

  def write_config(self) -> None:
    """Writes config.json, the copy of the config for people, in process 0."""
    if self._config is None or jax.process_index():
      return
    with self._writing(reader.CONFIG):
      path = self._workdir / reader.CONFIG
      atomic_files.write_text_atomically(path, self._config)

  def restore_latest(self, abstract_state: Any) -> Restored | None:
    """Restores the newest checkpoint that can be read.

    Damaged checkpoints that are newer are named in a warning and moved to
    checkpoints_damaged/.

    Args:
      abstract_state: TrainState of ShapeDtypeStructs with the shardings to
        restore to. The mesh may differ from the one that saved.

    Returns:
      Restored, or None if the work directory has no checkpoint.

    Raises:
      model_check.ModelMismatch: the checkpoint was made with another model or
        optimizer (the message names the first array that differs), or holds no
        EMA parameters.
      stored_format.OtherFormat: it was made by a program that stores states in
        another way.
      damaged_file.DamagedFile: there are checkpoints, but none can be read.
      transient_errors.NotAnswering: the storage failed for a long time.
    """
    damaged = {}
    for step in reversed(self.steps()):
      path = self._folder / str(step)
      try:
        sound = verification.verify(path)
      except Exception as error:
        if transient_errors.not_of_the_file(error):
          raise
        damaged[step] = error
        continue
      try:
        restored = self._restore(step, abstract_state)
      except reader.NOT_DAMAGE:
        raise
      # Without checksums, a truncated or missing file may raise any type of
      # error, even a bare Exception.
      except Exception as error:
        if transient_errors.of_a_library(error):
          raise storage_retry.not_answering(f'Reading {path}', error) from error
        if sound:
          raise
        damaged[step] = error
        continue
      # Checkpoints are moved only after one has been restored: if the fault
      # were in this program, every step would fail, and all must stay.
      for bad, error in damaged.items():
        self._set_aside(bad, error)
      return restored
    if damaged:
      newest, error = next(iter(damaged.items()))
      raise damaged_file.DamagedFile(
        f'No checkpoint of {self._place} can be read. The newest, of step '
        f'{newest}, fails with {write_errors.first_line(error)}. Restore a '
        f'backup, or remove {reader.CHECKPOINTS}/ to train from the beginning.'
      ) from error
    return None

  def _restore(self, step: int, abstract_state: Any) -> Restored:
    path = self._folder / str(step)
    reader.check_stored_model(path, abstract_state)
    state = state_arrays.read(path / 'state', abstract_state)
    position = reader.read_part(path, 'data')['position']
    sums = reader.read_part(path, 'window')['sums']
    return Restored(step, state, position, sums)

  def _set_aside(self, step: int, error: Exception) -> None:
    if collectives.is_first():
      self._move_aside(step, error)
    collectives.barrier(f'setting aside the checkpoint of step {step}')
    self._saves.steps.remove(step)

  def _move_aside(self, step: int, error: Exception) -> None:
    source = self._folder / str(step)
    target = self._folder.with_name(DAMAGED) / str(step)
    number = 1
    while target.exists():
      number += 1
      target = target.with_name(f'{step}.{number}')
    with self._writing(f'in {DAMAGED}'):
      target.parent.mkdir(exist_ok=True)
      if single_files.is_remote(target):
        # A bucket has no empty folder, into which to move something. Objects
        # are moved one by one; after a kill the rest is found damaged again.
        about = 'Unreadable checkpoints, which cdm train has moved here.\n'
        single_files.write_text(target.parent / 'about.txt', about)
      source.rename(target)
    _log.warning(
      'The checkpoint of step %d is damaged (%s). It was moved to %s, and the '
      'run continues from the one before.',
      step,
      write_errors.first_line(error),
      target,
    )

  @contextlib.contextmanager
  def _writing(self, description: str | None) -> Generator[None]:
    """Turns a failed write into an OSError that says where and what to do.

    Args:
      description: names what is written, for the message.
    """
    try:
      yield
    except Exception as error:
      reason = write_errors.reason(error, self._folder)
      if reason is None:
        raise
      older, remedy = '', 'Free space or choose another --workdir'
      if single_files.is_remote(self._folder):
        remedy = 'Look at the bucket and the network'
      elif whole := reader.complete_steps(self._workdir):
        older = f'The checkpoints of steps {whole} are whole. '
      raise OSError(
        f'Cannot write {description} in {self._place}: {reason}. {older}'
        f'{remedy}, then start the same command again.'
      ) from error

  def close(self) -> None:
    """Waits for the save in progress."""
    self.wait()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def _check_writable(directory: epath.Path) -> None:
  probe = directory / atomic_files.partial_name('probe')
  if single_files.is_remote(directory):
    probe.write_text('', encoding='utf-8')
  else:
    probe.touch(exist_ok=False)
  probe.unlink()
