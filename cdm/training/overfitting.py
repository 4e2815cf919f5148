"""Says whether a run overfits: its held-out loss rises while training goes on.

The noise of the held-out loss is the same in every evaluation, so that a few
rises in a row are no chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cdm.training.eval_section import EMA_LOSS

RISES = 3  # in a row, up to the last evaluation


def warning(name: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
  """Returns a sentence about a run that overfits, or None.

  Args:
    name: name of the run.
    rows: its scalars, see `metric_writer.read_scalars`.
  """
  held_out = points(rows, EMA_LOSS)
  first = len(held_out) - 1
  while first > 0 and held_out[first - 1][1] < held_out[first][1]:
    first -= 1
  rises = len(held_out) - 1 - first
  if rises < RISES:
    return None
  rising = held_out[first:]
  interval = rising[1][0] - rising[0][0]
  losses = points(rows, 'loss')
  before, after = (
    _mean(losses, step - interval, step) for step, _ in (rising[0], rising[-1])
  )
  if before is None or after is None or after >= before:
    return None
  (start, low), (end, high) = rising[0], rising[-1]
  best = min(held_out, key=lambda point: point[1])
  return (
    f'{name} overfits: the held-out loss of its EMA has risen in the last '
    f'{rises} evaluations, from {low:.4f} at step {start} to {high:.4f} at '
    f'step {end}, while the training loss fell from {before:.4f} to '
    f'{after:.4f}. The held-out loss was lowest at step {best[0]}.'
  )


def points(
  rows: Sequence[Mapping[str, Any]], name: str
) -> list[tuple[int, float]]:
  """Returns (step, value) of the rows in which a scalar is finite."""
  return [
    (row['step'], row[name])
    for row in rows
    if row.get(name) is not None and math.isfinite(row[name])
  ]


def _mean(losses, above, up_to):
  """Returns the mean loss of the log lines of some steps, or None."""
  near = [loss for step, loss in losses if above < step <= up_to]
  return sum(near) / len(near) if near else None
