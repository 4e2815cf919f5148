"""Keeps runs: state, data position, log window and config, together.

In the work directory:

  config.json               the config of the run, for people
  checkpoints/<step>/state  TrainState, written by Orbax
                    /data   position of the data iterator after that step
                    /window sums behind the log line that was being gathered
                    /config the config that made this very checkpoint
                    /checksums.json        of every file of the four
                    /_CHECKPOINT_METADATA  versions of what wrote it
  checkpoints_damaged/      what could not be read, set aside, never deleted

A checkpoint appears whole or not at all: it is written under a temporary name,
in the background, and renamed when every byte and its checksum are there.
"""

import contextlib
import ctypes
import errno
import importlib.metadata
import logging
import os
import pathlib
import re
import shutil
import time
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from cdm.checkpointing import checksums, reader
from cdm.distributed import collectives
from cdm.reporting import atomic_files

DAMAGED = 'checkpoints_damaged'
_PARTIAL = '.orbax-checkpoint-tmp'
# For the threads of a failed save, which may go on for a moment.
_REMOVAL_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Restored(NamedTuple):
  """What a checkpoint holds."""

  step: int
  state: Any
  data_state: dict
  window: dict


class Checkpointer:
  """Saves and restores the checkpoints of one work directory.

  Use as a context manager, or call `close`: saving goes on in the background.
  """

  def __init__(
    self,
    workdir,
    *,
    config=None,
    keep=3,
    keep_every_steps=None,
    save_every_steps=None,
  ):
    """Opens a work directory for a training run, making it if need be.

    Args:
      workdir: the work directory.
      config: JSON text, saved with every checkpoint.
      keep: how many of the newest checkpoints stay.
      keep_every_steps: checkpoints at multiples of this stay for good.
      save_every_steps: the newest at a multiple of this stays too, whatever
        was saved in between because the run was stopped.

    Raises:
      OSError: if the directory cannot be written.
    """
    reader.silence_orbax()
    self._workdir = pathlib.Path(workdir).absolute()
    self._config = config
    self._failed = False
    self._begun = None  # what is being saved, in words
    directory = self._workdir / reader.CHECKPOINTS
    with self._writing('a checkpoint'):
      directory.mkdir(parents=True, exist_ok=True)
      _probe(directory)
      if collectives.is_first():
        _remove_half_written(directory)
    collectives.barrier('half-written checkpoints are removed')
    self._manager = ocp.CheckpointManager(
      directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=_Kept(keep, keep_every_steps, save_every_steps),
        # Orbax would remove what was half-written in the background, and trip
        # over it when that step is saved meanwhile.
        cleanup_tmp_directories=False,
        async_options=ocp.options.AsyncOptions(
          post_finalization_callback=self._seal
        ),
      ),
    )

  def _seal(self):
    """Adds the checksums to what is complete but for its name.

    Orbax calls it in its own thread, in process 0.
    """
    for path in (self._workdir / reader.CHECKPOINTS).glob(f'*{_PARTIAL}*'):
      checksums.write(path, leave_out=(reader.METADATA,))

  def save(self, step, state, *, data_state, window=None):
    """Starts to save; the state may be donated as soon as this returns.

    Args:
      step: number of updates made.
      state: TrainState.
      data_state: JSON-able position of the data iterator, as of the batches
        that the state has consumed. The same on every process.
      window: JSON-able sums of the unfinished log line.

    Raises:
      OSError: if this save, or the one before it in the background, could not
        be written. Older checkpoints are whole.
    """
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      data=ocp.args.JsonSave({'position': data_state}),
      window=ocp.args.JsonSave({'sums': window or {}}),
      config=ocp.args.JsonSave({'text': self._config}),
    )
    self.wait()
    self._begun = f'the checkpoint of step {step}'
    with self._writing(self._begun):
      self._manager.save(
        step, args=args, force=True, custom_metadata=_versions()
      )

  def wait(self):
    """Returns when every checkpoint that was begun is on disk.

    Raises:
      OSError: if one could not be written.
    """
    if not self._failed:
      with self._writing(self._begun):
        self._manager.wait_until_finished()
      if self._begun is not None:
        _return_what_is_freed()

  def latest_step(self):
    """-> step of the newest checkpoint, or None."""
    return self._manager.latest_step()

  def steps(self):
    """-> steps of the checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def forget_after(self, step):
    """Deletes the checkpoints of later steps; they are to be made again."""
    self.wait()
    for later in self.steps():
      if later > step:
        self._manager.delete(later)

  def write_config(self):
    """Writes the copy of the config that people read."""
    if self._config is None or jax.process_index():
      return
    with self._writing(reader.CONFIG):
      path = self._workdir / reader.CONFIG
      atomic_files.write_text_atomically(path, self._config)

  def restore_latest(self, abstract_state):
    """Restores the newest checkpoint that can be read.

    One that is damaged is named, set aside, and the one before it is used.

    Args:
      abstract_state: TrainState of ShapeDtypeStructs with the shardings to
        restore to; the mesh need not be the one that saved.

    Returns:
      Restored, or None if the work directory has no checkpoint.

    Raises:
      ValueError: if the checkpoint was made with another model or optimizer
        (names the first parameter that differs), or holds no EMA, or if there
        are checkpoints and none can be read.
    """
    damaged = {}
    for step in reversed(self.steps()):
      path = self._workdir / reader.CHECKPOINTS / str(step)
      try:
        sound = reader.verify(path)
      except Exception as error:
        damaged[step] = error
        continue
      try:
        restored = self._restore(step, abstract_state)
      except _NOT_DAMAGE:
        raise
      # Without checksums, truncated or missing files raise anything, even a
      # bare Exception.
      except Exception as error:
        if sound:
          raise
        damaged[step] = error
        continue
      # Only now: were the fault ours, every step would fail, none be moved.
      for bad, error in damaged.items():
        self._set_aside(bad, error)
      return restored
    if damaged:
      newest, error = next(iter(damaged.items()))
      raise ValueError(
        f'No checkpoint of {self._workdir} can be read. Of step {newest}: '
        f'{_first_line(error)}. Restore a copy of one, or remove '
        f'{reader.CHECKPOINTS}/ to train from the beginning.'
      ) from error
    return None

  def _restore(self, step, abstract_state):
    path = self._workdir / reader.CHECKPOINTS / str(step)
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

  def _set_aside(self, step, error):
    if collectives.is_first():
      self._move_aside(step, error)
    collectives.barrier(f'setting aside the checkpoint of step {step}')
    self._manager.reload()

  def _move_aside(self, step, error):
    source = self._workdir / reader.CHECKPOINTS / str(step)
    target = self._workdir / DAMAGED / str(step)
    number = 1
    while target.exists():
      number += 1
      target = target.with_name(f'{step}.{number}')
    with self._writing(f'in {DAMAGED}'):
      target.parent.mkdir(exist_ok=True)
      os.replace(source, target)
    _log.warning(
      'The checkpoint of step %d is damaged (%s). It is now %s; going on from '
      'the one before.',
      step,
      _first_line(error),
      target,
    )

  @contextlib.contextmanager
  def _writing(self, what):
    """Turns a failed write into one error that says where and what to do."""
    try:
      yield
    except Exception as error:
      reason = _why_unwritten(error)
      if reason is None:
        raise
      self._failed = True
      whole = reader.complete_steps(self._workdir)
      older = f'The checkpoints of steps {whole} are whole. ' if whole else ''
      raise OSError(
        f'Cannot write {what} in {self._workdir}: {reason}. {older}Free space '
        'or choose another --workdir, then start the same command again.'
      ) from error

  def close(self):
    """Completes what is being saved."""
    self.wait()
    if not self._failed:
      self._manager.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def _return_what_is_freed():
  """Has glibc give freed memory back to the system.

  It keeps the buffers of a save in the arenas of the threads that wrote it, and
  memory would creep up from save to save. To have it never keep any (mallopt)
  would cost a third of a training step on CPU in page faults.
  """
  with contextlib.suppress(OSError, AttributeError):  # not glibc
    ctypes.CDLL('libc.so.6').malloc_trim(0)


class _Kept(checkpoint_managers.PreservationPolicy):
  """Which checkpoints stay; see Checkpointer."""

  def __init__(self, newest, every, scheduled):
    self._newest, self._every, self._scheduled = newest, every, scheduled

  def should_preserve(self, checkpoints, *, context):
    del context
    steps = sorted(info.step for info in checkpoints)
    kept = set(steps[-self._newest :])
    if self._every:
      kept |= {step for step in steps if step % self._every == 0}
    if self._scheduled:
      kept |= {max((s for s in steps if s % self._scheduled == 0), default=-1)}
    return [info.step in kept for info in checkpoints]


def _why_unwritten(error):
  """-> the system's reason if `error` is a failed write, else None."""
  if isinstance(error, OSError):
    return error.strerror or str(error)
  # TensorStore, below Orbax, raises ValueError and keeps the number in it.
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(code[1])) if code else None


def _probe(directory):
  probe = directory / f'.probe-{os.getpid()}'
  probe.touch()
  probe.unlink()


def _remove_half_written(directory):
  for path in sorted(directory.glob(f'*{_PARTIAL}*')):
    _log.warning(
      'Removing %s: the run was killed while it was being written.', path
    )
    _remove(path)


def _remove(path):
  """Removes a directory in which a write that failed may still be ending."""
  deadline = time.monotonic() + _REMOVAL_SECONDS
  while path.exists():
    try:
      shutil.rmtree(path)
    except OSError as error:
      moved = error.errno in (errno.ENOENT, errno.ENOTEMPTY)
      if not moved or time.monotonic() > deadline:
        raise
      time.sleep(0.1)


# Running out of memory is not the fault of the files.
_NOT_DAMAGE = (reader.OtherModel, jax.errors.JaxRuntimeError, MemoryError)


def _first_line(error):
  return f'{type(error).__name__}: {error}'.split('\n')[0][:200]


def _versions():
  packages = ('cdm', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')
  found = {}
  for package in packages:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = 'not installed'  # run from a checkout
  return {'versions': found}
