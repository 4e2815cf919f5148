"""Declares the objects that a run reads from, saves to and reports to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cdm.training import watchdog

if TYPE_CHECKING:
  from cdm.checkpointing.writer import Checkpointer
  from cdm.reporting.metric_writer import Reporter
  from cdm.training.prefetch import BatchIterator
  from cdm.training.rollback import Rollbacks


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
  """

  iterator: BatchIterator
  checkpointer: Checkpointer
  reporter: Reporter
  rollbacks: Rollbacks | None = None
  watch: watchdog.Watchdog = dataclasses.field(
    default_factory=watchdog.Watchdog
  )
