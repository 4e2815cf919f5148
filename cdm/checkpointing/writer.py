"""Saves and restores the checkpoints of a training run.

A checkpoint holds the training state, the data position, the sums of the log
window and the config, always together. The work directory contains:

  config.json               the config of the run, for people to read
  checkpoints/<step>/state  TrainState, written by Orbax
                    /data   position of the data iterator after that step
                    /window sums of the log line that was not yet complete
                    /config the config that this checkpoint was made with
                    /checksums.json        of every file in the four folders
                    /_CHECKPOINT_METADATA  versions of the packages that saved
             /best        step and metric of the best checkpoint, as JSON
  checkpoints_damaged/      unreadable checkpoints, moved here, never deleted

A checkpoint appears whole or not at all: it is written in the background under
a temporary name and renamed when all of its bytes and checksums are on disk.
"""

import contextlib
import ctypes
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp
from etils import epath

from cdm.checkpointing import (
  checksums,
  half_written,
  orbax_output,
  preservation,
  reader,
  single_files,
)
from cdm.data.files import atomic_files, damaged_file
from cdm.distributed import collectives, timeouts

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

    Raises:
      OSError: the directory cannot be written.
    """
    orbax_output.silence()
    self._workdir = pathlib.Path(workdir).absolute()
    self._folder = reader.folder(workdir)
    self._before_commit = before_commit
    self._config = config
    self._failed = False
    self._pending = None  # names the save in progress, for error messages
    with self._writing('a checkpoint'):
      self._folder.mkdir(parents=True, exist_ok=True)
      _check_writable(self._folder)
      if collectives.is_first():
        half_written.remove(self._folder)
    collectives.barrier('half-written checkpoints are removed')
    self._preservation = preservation.Preservation(
      keep, keep_every_steps, save_every_steps, self._best_step()
    )
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._preservation,
        # Orbax would remove half-written checkpoints in the background, and
        # fail if the same step is saved meanwhile.
        cleanup_tmp_directories=False,
        # Else a checkpoint without metadata is asked when it was made and by
        # whom, and a container's user whom the system cannot name is an error.
        lightweight_initialize=True,
        # Process 0 lists the checkpoints for all: a network's file system may
        # show another host an older listing.
        single_host_load_and_broadcast=True,
        async_options=ocp.options.AsyncOptions(
          timeout_secs=math.ceil(
            timeouts.seconds(timeouts.SAVE, processes=jax.process_count())
          ),
          post_finalization_callback=self._prepare_commit,
        ),
      ),
    )

  def _prepare_commit(self) -> None:
    """Adds the checksums to a checkpoint before it counts as complete.

    Orbax calls this function in its own thread, in process 0.
    """
    for path in half_written.find(self._folder):
      checksums.write(path, leave_out=(reader.METADATA,))
    self._before_commit()

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
      OSError: this save, or the previous one in the background, could not be
        written. Older checkpoints remain whole.
    """
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      data=ocp.args.JsonSave({'position': data_state}),
      window=ocp.args.JsonSave({'sums': window or {}}),
      config=ocp.args.JsonSave({'text': self._config}),
    )
    self.wait()
    self._pending = f'the checkpoint of step {step}'
    with self._writing(self._pending):
      self._manager.save(
        step, args=args, force=True, custom_metadata=_versions()
      )

  def wait(self) -> None:
    """Waits until every checkpoint that `save` has started is on disk.

    Once a save has failed and raised, this method returns immediately.

    Raises:
      OSError: a checkpoint could not be written.
    """
    if not self._failed:
      with self._writing(self._pending):
        self._manager.wait_until_finished()
      if self._pending is not None:
        _trim_heap()

  @property
  def _place(self) -> epath.Path:
    """The work directory, for error messages."""
    return self._folder.parent

  def latest_step(self) -> int | None:
    """Returns the step of the newest checkpoint, or None if there is none."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """Returns the steps of the checkpoints, in ascending order."""
    return sorted(self._manager.all_steps())

  def forget_after(self, step: int) -> None:
    """Deletes the checkpoints of later steps, which the run will redo."""
    self.wait()
    for later in self.steps():
      if later > step:
        self._manager.delete(later)
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
      reader.ModelMismatch: the checkpoint was made with another model or
        optimizer (the message names the first array that differs), or holds no
        EMA parameters.
      damaged_file.DamagedFile: there are checkpoints, but none can be read.
    """
    damaged = {}
    for step in reversed(self.steps()):
      path = self._folder / str(step)
      try:
        sound = reader.verify(path)
      except Exception as error:
        damaged[step] = error
        continue
      try:
        restored = self._restore(step, abstract_state)
      except reader.NOT_DAMAGE:
        raise
      # Without checksums, a truncated or missing file may raise any type of
      # error, even a bare Exception.
      except Exception as error:
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
        f'{newest}, fails with {_first_line(error)}. Restore a backup, or '
        f'remove {reader.CHECKPOINTS}/ to train from the beginning.'
      ) from error
    return None

  def _restore(self, step: int, abstract_state: Any) -> Restored:
    path = self._folder / str(step)
    reader.check_model(
      reader.shapes_on_disk(path), reader.shapes(abstract_state), path
    )
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract_state),
        data=ocp.args.JsonRestore(),
        window=ocp.args.JsonRestore(),
      ),
    )
    position, sums = restored['data']['position'], restored['window']['sums']
    return Restored(step, restored['state'], position, sums)

  def _set_aside(self, step: int, error: Exception) -> None:
    if collectives.is_first():
      self._move_aside(step, error)
    collectives.barrier(f'setting aside the checkpoint of step {step}')
    self._manager.reload()

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
      _first_line(error),
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
      reason = _bucket_error_reason(error, self._folder)
      reason = reason or _write_error_reason(error)
      if reason is None:
        raise
      self._failed = True
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
    """Waits for the save in progress and closes the manager of Orbax."""
    self.wait()
    if not self._failed:
      self._manager.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def _trim_heap() -> None:
  """Makes glibc return freed memory to the operating system.

  glibc keeps the buffers of a save in the arenas of the threads that wrote it,
  so memory use would grow from save to save. Setting glibc to keep no memory at
  all (mallopt) is no alternative: its page faults cost a third of a training
  step on CPU.
  """
  with contextlib.suppress(OSError, AttributeError):  # not glibc
    ctypes.CDLL('libc.so.6').malloc_trim(0)


def _write_error_reason(error: Exception) -> str | None:
  """Returns the system's reason if `error` is a failed write, else None."""
  if isinstance(error, OSError):
    return error.strerror or str(error)
  # Orbax writes with TensorStore, whose ValueError has the errno in its text.
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(code[1])) if code else None


def _bucket_error_reason(error: Exception, folder: epath.Path) -> str | None:
  """Returns the first line of an error of a bucket's client, else None."""
  clients = ('gcsfs', 'aiohttp', 'google')
  is_client = type(error).__module__.split('.')[0] in clients
  # TensorStore raises a ValueError that names the object.
  named = os.fspath(folder).removeprefix('gs://') in str(error)
  if not single_files.is_remote(folder) or isinstance(error, OSError):
    return None
  return _first_line(error) if is_client or named else None


def _check_writable(directory: epath.Path) -> None:
  probe = directory / atomic_files.partial_name('probe')
  if single_files.is_remote(directory):
    probe.write_text('', encoding='utf-8')
  else:
    probe.touch(exist_ok=False)
  probe.unlink()


def _first_line(error: Exception) -> str:
  return f'{type(error).__name__}: {error}'.split('\n')[0][:200]


def _versions() -> dict[str, dict[str, str]]:
  packages = ('cdm', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')
  versions = {}
  for package in packages:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = 'not installed'  # cdm runs from a source checkout
  return {'versions': versions}
