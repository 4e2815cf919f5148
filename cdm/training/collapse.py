"""Says whether the game of an adversarial run has collapsed.

Two things end what a generator can learn from a discriminator: its images are
all alike, or the discriminator tells every one of them from its original. Both
happen for a moment in good runs, so that a sentence is due only when it stays.
Runs without a discriminator have neither scalar, and no sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cdm.methods.adversarial import ACCURACY, ORIGINAL_SPREAD, SPREAD

LINES = 10  # in a row, up to the last log line
MOST_ACCURATE = 0.99  # of a discriminator from which something is learnt
# Of the standard deviation of the originals over a batch: the least that images
# may have whose generator has not collapsed.
LEAST_SPREAD = 0.25


class Watch:
  """Looks at every log line of a session, and speaks once per collapse."""

  def __init__(self, name: str, say: Callable[[str], object]):
    """Begins without lines.

    Args:
      name: name of the run.
      say: prints a sentence.
    """
    self._name, self._say = name, say
    self._rows: list[dict[str, Any]] = []
    self._said = False

  def add(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Takes the scalars of a log line.

    Args:
      step: its step; after a rollback it may be earlier than the last one.
      scalars: {name: number}.
    """
    if ACCURACY not in scalars:
      return
    earlier = [row for row in self._rows if row['step'] < step]
    self._rows = [*earlier[-LINES + 1 :], {'step': step, **scalars}]
    text = warning(self._name, self._rows)
    if text and not self._said:
      self._say(f'warning: {text}')
    self._said = bool(text)


def warning(name: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
  """Returns a sentence or two about a run that has collapsed, or None.

  Args:
    name: name of the run.
    rows: its scalars, see `metric_writer.read_scalars`.
  """
  lines = [row for row in rows if row.get(ACCURACY) is not None][-LINES:]
  if len(lines) < LINES:
    return None
  where = (
    f'in the last {LINES} log lines, of steps {lines[0]["step"]:,} to '
    f'{lines[-1]["step"]:,}'
  )
  spread = max(map(_relative_spread, lines))
  if spread < LEAST_SPREAD:
    return (
      f'{name} has collapsed: {where}, the images of the generator differed '
      f'from each other by at most {spread:.0%} of what their originals do. '
      'Start again from an earlier checkpoint, with a lower '
      'optimizer.learning_rate or a larger method.r1_weight.'
    )
  accuracy = min(row[ACCURACY] for row in lines)
  if accuracy > MOST_ACCURATE:
    return (
      f'The discriminator of {name} has won: {where}, it told at least '
      f'{accuracy:.1%} of the images from their originals, so that the '
      'generator learns little from it. Give it a larger method.r1_weight, or '
      "a lower rate: optimizer.group_rates=(('^discriminator', 0.5),)."
    )
  return None


def _relative_spread(row):
  """Returns the spread of a line's images over that of their originals."""
  images, originals = row.get(SPREAD), row.get(ORIGINAL_SPREAD)
  if not originals:  # one image on each device: there is nothing to compare
    return math.inf
  return math.sqrt(max(images, 0.0) / originals)
