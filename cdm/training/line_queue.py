"""Holds log lines back until the device has made their steps.

To write a line at its own step, the host would have to wait until the device
has no more work. So the rates of a line are taken at its step, and its means
when later steps are on their way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdm.training import step_timer

if TYPE_CHECKING:
  from cdm.reporting.metric_writer import Reporter
  from cdm.training.hooks import Hooks
  from cdm.training.running_metrics import RunningMetrics


class LineQueue:
  """The lines that are due and not yet written, in the order of their steps.

  Attributes:
    timer: measures the time since the last line.
    batch_size: images of a global batch; known from the first batch on.
  """

  def __init__(self, reporter: Reporter, hooks: Hooks):
    """Begins without lines.

    Args:
      reporter: writes the lines.
      hooks: adds to them.
    """
    self._reporter, self._hooks = reporter, hooks
    self.timer = step_timer.Timer()
    self.batch_size = 0
    self._due: list[tuple[int, dict[str, float]]] = []

  def add(self, step: int, metrics: RunningMetrics) -> None:
    """Makes a line due, and begins the time of the next one."""
    self._due.append((step, self.rates(step, metrics)))
    self.timer.restart(step - metrics.in_flight())

  def rates(self, step: int, metrics: RunningMetrics) -> dict[str, float]:
    """Returns the rates since the last line.

    The clock stands at the last step that the device has made, which is not
    the last one asked for.

    Args:
      step: the last step asked for.
      metrics: has the scalars of the steps, whether made or not.
    """
    made = step - metrics.in_flight()
    return self.timer.rates(made, batch_size=self.batch_size)

  def pop(self, up_to: int) -> tuple[int, dict[str, float]] | None:
    """Removes the next line of a step up to this one; None if there is none.

    Returns:
      (its step, its rates).
    """
    due = self._due and self._due[0][0] <= up_to
    return self._due.pop(0) if due else None

  def clear(self) -> None:
    """Forgets the lines, whose steps a rollback undoes."""
    self._due.clear()

  def write(
    self, step: int, rates: dict[str, float], metrics: RunningMetrics
  ) -> float | None:
    """Writes the line of a step.

    Args:
      step: the step.
      rates: its rates.
      metrics: has the means up to this step.

    Returns:
      The loss; None if all steps of the line were skipped.
    """
    means = metrics.means()
    rates['goodput'] = metrics.goodput.share()
    if self._hooks.evaluations:
      rates['evaluation_fraction'] = metrics.goodput.evaluation_share()
    if self._hooks.gauges is not None:
      rates |= self._hooks.gauges(step, rates)
    self._reporter.scalars(step, means | rates)
    if self._hooks.after_line is not None:
      self._hooks.after_line(step, means)
    return means.get('loss')
