"""Declares the objects that a run reads from, saves to and reports to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cdm.training import frozen_state, watchdog
from cdm.training.averaged_state import averages_of

if TYPE_CHECKING:
  from cdm.checkpointing.local_copies import LocalCopies
  from cdm.checkpointing.snapshot_writer import SnapshotWriter
  from cdm.checkpointing.writer import Checkpointer
  from cdm.distributed.replica_comparison import ReplicaComparison
  from cdm.reporting.metric_writer import Reporter
  from cdm.training.prefetch import BatchIterator
  from cdm.training.rollback import Rollbacks
  from cdm.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Collaborators:
  """The objects that a run reads data from, saves to and reports to.

  Attributes:
    iterator: the data of this process. It is read ahead, so after `train` its
      position is beyond the one that was saved.
    checkpointer: saves and restores the checkpoints of the work directory.
    reporter: writes the records of the work directory.
    rollbacks: rollbacks of the work directory; None ends the run when it
      diverges.
    watch: the watchdog; by default one that reports nothing.
    comparison: compares what `compared_part` chooses of the state between the
      devices that hold the same; None never compares.
    local_copies: copies on the local disks of the hosts; None makes none.
    snapshots: snapshots of averages of the parameters; None writes none.
  """

  iterator: BatchIterator
  checkpointer: Checkpointer
  reporter: Reporter
  rollbacks: Rollbacks | None = None
  watch: watchdog.Watchdog = dataclasses.field(
    default_factory=watchdog.Watchdog
  )
  comparison: ReplicaComparison | None = None
  local_copies: LocalCopies | None = None
  snapshots: SnapshotWriter | None = None


def compared_part(state: TrainState) -> dict[str, Any]:
  """Returns the part of a state that is compared between devices.

  An optimizer state that differs changes the parameters at the next step, so
  it needs no comparison of its own.
  """
  part = {
    'step': state.step,
    'params': state.params,
    'ema_params': state.ema_params,
    **frozen_state.of(state),
  }
  if averages := averages_of(state):
    part['averages'] = averages
  return part
