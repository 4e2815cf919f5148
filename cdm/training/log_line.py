"""Adds to a log line what the step itself does not know.

  images_seen = step batch_size;  epoch = images_seen / images of the data set

They count the batches of the run's record: a rollback takes back what it
undoes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cdm.reporting import process_age
from cdm.training.host_spread import HostSpread


class LogLine:
  """The scalars of a log line besides its means and rates.

  Its methods are two hooks of the loop, see `hooks.Hooks`.
  """

  def __init__(
    self,
    *,
    batch_size: int,
    num_images: int,
    utilization: Callable[[Mapping[str, float]], dict[str, float]],
    facts: Any,
    spread: HostSpread | None = None,
  ):
    """Begins a session.

    Args:
      batch_size: images per step, over all devices.
      num_images: images of the training data.
      utilization: rates -> scalars, see `utilization.make_utilization`.
      facts: the values of the session's line in sessions.jsonl, a dict that is
        extended in place.
      spread: compares the processes of the run; None in a run of one.
    """
    self._batch_size, self._num_images = batch_size, num_images
    self._utilization, self._facts = utilization, facts
    self._spread = spread
    self._start: dict[str, float] = {}  # for the next line only

  def first_step(self) -> None:
    """Takes the seconds from the start of the process to its first step."""
    seconds = round(process_age.seconds(), 3)
    self._start = {'start_seconds': seconds}
    self._facts['start_seconds'] = seconds

  def gauges(
    self, step: int, rates: Mapping[str, float]
  ) -> Mapping[str, float | str]:
    """Returns the scalars that a line gets beside its means.

    Args:
      step: number of updates made.
      rates: what `step_timer.Timer.rates` returned.
    """
    start, self._start = self._start, {}
    images = step * self._batch_size
    position = {'images_seen': images, 'epoch': images / self._num_images}
    own = {**position, **self._utilization(rates), **start}
    if self._spread is None:
      return own
    return {**own, **self._spread.add(step, {**rates, **own})}
