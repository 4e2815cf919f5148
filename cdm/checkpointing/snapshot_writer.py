"""Writes snapshots of a run's power-function averages, in the background.

They are never deleted, but for those of steps that a run makes once more. One
that cannot be written is left out with a warning: a run is worth more, and
other widths are made of those that are there.
"""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cdm.checkpointing import (
  average_names,
  background_save,
  freed_memory,
  half_written,
  orbax_output,
  reader,
  snapshot_reader,
  stored_format,
)
from cdm.distributed import collectives

_log = logging.getLogger(__name__)


class SnapshotWriter:
  """The snapshots of one run."""

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    every_steps: int,
    num_steps: int,
    keys: Sequence[str],
    dtype: str,
    config: str | None = None,
  ):
    """Opens the folder of the snapshots; removes what a kill left half-written.

    A collective.

    Args:
      workdir: work directory of the run.
      every_steps: a snapshot is due at multiples of this step.
      num_steps: and at this one, the last.
      keys: of the averages that it holds, see `average_names.key`.
      dtype: in which they are written.
      config: the config as JSON text, written with them.

    Raises:
      OSError: the folder cannot be written.
    """
    orbax_output.silence()
    self._folder = snapshot_reader.folder(workdir)
    self._every_steps, self._num_steps = every_steps, num_steps
    self._keys, self._dtype, self._config = keys, dtype, config
    self._save: background_save.BackgroundSave | None = None
    if collectives.is_first():
      self._folder.mkdir(parents=True, exist_ok=True)
      half_written.remove(self._folder)
    collectives.barrier('half-written snapshots are removed')
    self._steps = collectives.call_in_first(
      lambda: reader.complete_in(self._folder)
    )

  def is_due(self, step: int) -> bool:
    """Returns whether a snapshot is to be written after this step."""
    regular = step % self._every_steps == 0 or step == self._num_steps
    return step > 0 and regular

  def write(self, step: int, averages: Mapping[str, Any]) -> None:
    """Starts to write a snapshot, unless there is one of this step.

    The averages may be donated when this returns.

    Args:
      step: number of updates made.
      averages: {key: tree of float32 arrays}.
    """
    self.wait()
    if step in self._steps:
      return
    chosen = {key: averages[key] for key in self._keys}
    content = background_save.Content(
      {average_names.FIELD: _cast(chosen, self._dtype)},
      {'config': {'text': self._config}},
      {'custom_metadata': stored_format.made_by()},
    )
    self._save = background_save.BackgroundSave(self._folder, step, content)

  def finish_writing(self) -> None:
    """Waits until what was started is on disk or has failed.

    For the thread that completes a checkpoint: a run that continues from the
    checkpoint does not make the snapshots before it again.
    """
    if (save := self._save) is not None:
      save.outcome()

  def wait(self) -> None:
    """Waits likewise, and warns of a failure."""
    if self._save is None:
      return
    save, self._save = self._save, None
    outcome = save.outcome()
    freed_memory.trim()
    if not outcome.reason:
      self._steps = sorted({*self._steps, save.step})
    elif collectives.is_first():
      _log.warning(
        'The snapshot of the averages of step %d could not be written (%s). '
        'Training goes on without it; other widths are made of the others.',
        save.step,
        outcome.reason,
      )

  def forget_after(self, step: int) -> None:
    """Deletes the snapshots of later steps, which the run will redo.

    A collective.
    """
    self.wait()
    later = [each for each in self._steps if each > step]
    if collectives.is_first():
      background_save.delete(self._folder, later)
    collectives.barrier(f'the snapshots after step {step} are deleted')
    self._steps = [each for each in self._steps if each <= step]


@functools.partial(jax.jit, static_argnums=1)
def _cast(tree, dtype):
  return jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), tree)
