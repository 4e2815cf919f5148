"""Keeps the best checkpoint of a run, by a scalar of its evaluations.

The best checkpoint follows from the record and from the checkpoints that exist.
It is found anew when a run continues or goes back, so a kill changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cdm.distributed import collectives

if TYPE_CHECKING:
  from cdm.checkpointing.reader import Best
  from cdm.checkpointing.writer import Checkpointer
  from cdm.reporting.metric_writer import Reporter


class BestCheckpoint:
  """The best checkpoint so far, which is kept while newer ones are dropped."""

  def __init__(
    self,
    metric: str,
    *,
    higher_is_better: bool,
    checkpointer: Checkpointer,
    reporter: Reporter,
  ):
    """Knows of no checkpoint yet; `resume` must be called first.

    Args:
      metric: name of the scalar.
      higher_is_better: whether a higher value is better.
      checkpointer: keeps the checkpoint.
      reporter: has the record of the run.
    """
    self._metric, self._sign = metric, -1.0 if higher_is_better else 1.0
    self._checkpointer, self._reporter = checkpointer, reporter
    self._best: Best | None = None

  def resume(self, step: int) -> None:
    """Finds the best of the checkpoints up to `step` that exist.

    A collective: process 0, which has the record, tells the others.
    """
    saved = set(self._checkpointer.steps())
    best = None
    for row in self._reporter.rows(since=min(saved, default=step)):
      if row['step'] <= step and row['step'] in saved:
        best = self._better(best, row['step'], row)
    self._best = collectives.gather_objects(best)[0]
    self._checkpointer.keep_best(self._best)

  def consider(self, step: int, values: Mapping[str, float]) -> bool:
    """Keeps the checkpoint of this step if it is better than the best so far.

    Of equal ones the earliest is the best.

    Args:
      step: a step whose checkpoint is saved, or is being saved.
      values: the scalars of an evaluation at this step.

    Returns:
      False if it is better, but its checkpoint could not be saved.
    """
    best = self._better(self._best, step, values)
    if best is self._best:
      return True
    self._checkpointer.wait()  # The file names complete checkpoints only.
    if step not in self._checkpointer.steps():
      return False
    self._best = best
    self._checkpointer.keep_best(best)
    return True

  def _better(
    self, best: Best | None, step: int, values: Mapping[str, Any]
  ) -> Best | None:
    value = values.get(self._metric)
    if value is None or not math.isfinite(value):
      return best
    value = float(value)
    if best is not None and self._sign * value >= self._sign * best['value']:
      return best
    return {'step': int(step), 'metric': self._metric, 'value': value}
