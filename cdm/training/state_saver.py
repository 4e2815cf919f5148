"""Decides when a run saves its state, and saves only what has been compared.

The state goes into a checkpoint at regular steps and by the clock, and to the
local disks of the hosts by the clock; snapshots of averages are written at
regular steps. Before that, devices that hold the same
values compare them, so that what a faulty device holds is not saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdm.distributed import collectives
from cdm.training import intervals
from cdm.training.averaged_state import averages_of
from cdm.training.collaborators import Collaborators, compared_part

if TYPE_CHECKING:
  from collections.abc import Mapping

  from cdm.training.run_config import Run
  from cdm.training.state import TrainState

SAVE, COPY, SNAPSHOT = intervals.SAVE, intervals.COPY, 'snapshot'


class StateSaver:
  """The checkpoints, local copies and comparisons of one run."""

  def __init__(self, collaborators: Collaborators, schedule: Run):
    """Starts the clocks; nothing is due before they have run once.

    Args:
      collaborators: the objects of the run.
      schedule: the section `train`.
    """
    self._checkpointer = collaborators.checkpointer
    self._comparison = collaborators.comparison
    self._copies = collaborators.local_copies
    self._snapshots = collaborators.snapshots
    self._schedule = schedule
    minutes = {SAVE: schedule.save_every_minutes}
    if self._copies is not None:
      minutes[COPY] = schedule.local_copy_every_minutes
    self._intervals = intervals.Intervals(minutes)

  def due(self, step: int) -> str | None:
    """Returns SAVE or COPY if that is to be done after this step, else None.

    Every process must call it after every step.
    """
    due = set()
    if step % self._schedule.log_every_steps == 0:
      due = self._intervals.due()
    if SAVE in due or step % self._schedule.save_every_steps == 0:
      return SAVE
    if self._must_save_again(step):
      return SAVE
    # The last step is saved anyway.
    last = step == self._schedule.num_steps
    return COPY if COPY in due and not last else None

  def snapshot_is_due(self, step: int) -> bool:
    """Returns whether to write a SNAPSHOT after this step.

    It comes before a checkpoint, which is complete only when the snapshots
    before it are.
    """
    return self._snapshots is not None and self._snapshots.is_due(step)

  def _must_save_again(self, step: int) -> bool:
    """Returns whether to save because the last save failed; a collective.

    In a run of several processes they ask each other only when they log.
    """
    alone = collectives.process_count() == 1
    asks = alone or step % self._schedule.log_every_steps == 0
    return asks and self._checkpointer.retry_is_due()

  def compare_if_due(self, step: int, state: TrainState) -> None:
    """Starts a comparison at the regular steps; see `start_comparison`."""
    every = self._schedule.compare_every_steps
    if every and step % every == 0:
      self.start_comparison(step, state)

  def start_comparison(self, step: int, state: TrainState) -> None:
    """Starts to compare a state between the devices that hold the same.

    `finish_comparison` judges the result, so that the devices need not wait.
    """
    if self._comparison is not None:
      self._comparison.start(compared_part(state), step)

  def finish_comparison(self) -> None:
    """Judges the comparisons that were started.

    Raises:
      replica_comparison.ReplicasDiffer: devices hold different values.
    """
    if self._comparison is not None:
      self._comparison.finish()

  def write(
    self,
    kind: str,
    step: int,
    state: TrainState,
    *,
    data_state: Any,
    window: Mapping[str, object],
  ) -> None:
    """Starts to write the state; see `Checkpointer.save` for the arguments.

    Args:
      kind: SAVE, COPY or SNAPSHOT.
      step: number of updates made.
      state: the state, which has been compared.
      data_state: position of the data.
      window: sums of the unfinished log line.

    Raises:
      OSError: a checkpoint could not be written.
    """
    if kind == SNAPSHOT:
      assert self._snapshots is not None, 'nothing else makes them due'
      self._snapshots.write(step, averages_of(state))
      return
    target: Any = self._checkpointer.save
    if kind == COPY:
      assert self._copies is not None, 'nothing else makes copies due'
      target = self._copies.write
    target(step, state, data_state=data_state, window=window)
    self._intervals.made(COPY)  # A checkpoint takes the place of a copy.
    if kind == SAVE:
      self._intervals.made(SAVE)

  def finish_snapshots(self) -> None:
    """Waits until the snapshots are on disk."""
    if self._snapshots is not None:
      self._snapshots.wait()

  def forget_after(self, step: int) -> None:
    """Removes local copies and snapshots of later steps, which are redone."""
    self.forget_copies(after=step)
    if self._snapshots is not None:
      self._snapshots.forget_after(step)

  def forget_copies(self, after: int | None = None) -> None:
    """Removes the local copies of later steps; by default all."""
    if self._copies is not None:
      self._copies.forget_after(after)
