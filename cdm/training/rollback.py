"""Records the rollbacks of a run: which data it skipped after it diverged.

  rollbacks.json   [{"to": step, "bad": step, "why": ..., "position": ...}]

A rollback goes back to the checkpoint of step `to` and continues with the data
after the batch of step `bad`, the first step that diverged. The list is written
before the run continues, so a run that is killed afterwards and restores that
checkpoint again skips the same data. The random key of a step is folded from
its number, so after a rollback nothing but the data differs.
"""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, TypedDict

from cdm.data.files import atomic_files, damaged_file, json_file
from cdm.data.pipeline_state import PipelineState

FILE = 'rollbacks.json'
POLICIES = ('stop', 'rollback')


class Rollback(TypedDict):
  """One entry of the file.

  Attributes:
    to: step of the checkpoint that the run went back to.
    bad: first step that diverged.
    why: what was wrong with that step, in words.
    position: data position after the batch of that step.
  """

  to: int
  bad: int
  why: str
  position: PipelineState | None


class _Written(TypedDict):
  """An entry as it is read; the pipeline checks the position itself."""

  to: int
  bad: int
  why: str
  position: dict[str, Any] | None


class Rollbacks:
  """The rollbacks of one work directory."""

  def __init__(
    self, workdir: str | os.PathLike, *, limit: int = 0, active: bool = True
  ):
    """Reads the rollbacks that the work directory already records.

    Args:
      workdir: work directory of the run.
      limit: how many rollbacks the run may make in all; 0 allows none.
      active: whether this process writes the file; true in process 0 only.

    Raises:
      damaged_file.DamagedFile: if the file is not a list of rollbacks.
    """
    self._path = pathlib.Path(workdir) / FILE
    self._active = active
    self.limit = limit
    self.made: list[Rollback] = []  # entries of the file, ordered by `to`
    if self._path.exists():
      try:
        made = json_file.read(self._path, list[_Written], remedy='')
      except damaged_file.DamagedFile as error:
        raise damaged_file.DamagedFile(
          f'{self._path} is not a list of rollbacks: {error}Remove it to train '
          'on without them.'
        ) from error
      self.made = sorted(made, key=lambda entry: entry['to'])

  def permitted(self) -> bool:
    """Returns whether the run may make one more rollback."""
    return len(self.made) < self.limit

  def resume(self, step: int) -> None:
    """Forgets the rollbacks to checkpoints later than `step`.

    A run that continues at `step` has not reached them yet, and makes them
    again if it diverges again.
    """
    kept = [entry for entry in self.made if entry['to'] <= step]
    if kept != self.made:
      self.made = kept
      self._write()

  def position(self, step: int) -> PipelineState | None:
    """Returns the data position to continue with from a checkpoint.

    Args:
      step: step of the checkpoint.

    Returns:
      The position after the data that the last rollback to this checkpoint
      skipped, or None if there was no rollback; the position in the checkpoint
      then holds.
    """
    found = [e['position'] for e in self.made if e['to'] == step]
    return found[-1] if found else None

  def add(
    self,
    *,
    to: int,
    diverged_step: int,
    why: str,
    position: PipelineState | None,
  ) -> None:
    """Records a rollback; it is on disk when this returns.

    Args:
      to: step of the checkpoint that the run goes back to.
      diverged_step: first step that diverged.
      why: what was wrong with that step, in words.
      position: data position after the batch of that step.
    """
    self.made.append(
      {'to': to, 'bad': diverged_step, 'why': why, 'position': position}
    )
    self._write()

  def _write(self):
    if self._active:
      text = json.dumps(self.made, indent=1) + '\n'
      atomic_files.write_text_atomically(self._path, text)


def latest_scheduled(
  steps: Iterable[int], *, before: int, every: int
) -> int | None:
  """Returns the checkpoint to roll back to, or None if there is none.

  Only checkpoints at multiples of save_every_steps are used, because every run
  of a config makes those. So the result is the same whether or not the run was
  stopped in between.

  Args:
    steps: steps of the checkpoints.
    before: the step that diverged.
    every: save_every_steps.
  """
  scheduled = [step for step in steps if step < before and step % every == 0]
  return max(scheduled, default=None)
