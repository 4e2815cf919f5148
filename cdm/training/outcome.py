"""Declares how a run of training ended, as the loop returns it."""

from __future__ import annotations

from typing import NamedTuple

from cdm.distributed import exit_codes
from cdm.training.state import TrainState


class Outcome(NamedTuple):
  """How a run ended: complete or stopped; a run that fails raises instead."""

  state: TrainState
  step: int
  ending: exit_codes.ExitCode

  @property
  def exit_code(self) -> int:
    """0 if the run is complete, 130 after Ctrl-C, 75 if preempted."""
    return self.ending.code
