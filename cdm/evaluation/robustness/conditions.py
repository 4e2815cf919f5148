"""Lists the conditions of a robustness study: the inputs it compares.

A condition is the clean input, or a degradation of it at one strength.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cdm.ops import degradations

CLEAN = 'clean'


class Condition(NamedTuple):
  """One kind of input: a degradation at one strength, or the clean input.

  Attributes:
    degradation: a kind of `degradations.KINDS`, or `CLEAN`.
    strength: a number or the name of a filter; None for `CLEAN`.
  """

  degradation: str
  strength: float | str | None = None

  @property
  def name(self) -> str:
    """The name in rows and of folders: 'clean', 'noise-10', 'kernel-nearest'.

    Rows hold it as `cell`.
    """
    if self.degradation == CLEAN:
      return CLEAN
    strength = degradations.format_strength(self.strength)
    return f'{self.degradation}-{strength}'


def list_conditions(chosen: Mapping[str, Sequence]) -> list[Condition]:
  """Lists the clean input and all degraded inputs, the clean one first.

  Args:
    chosen: {degradation: strengths} of `degradations.parse`.
  """
  degraded = [Condition(n, v) for n, values in chosen.items() for v in values]
  return [Condition(CLEAN), *degraded]


def undo_photometric(condition: Condition, made: np.ndarray) -> np.ndarray:
  """Returns the image to compare with the original.

  A change of brightness or contrast of the input is undone.

  Args:
    condition: the input.
    made: uint8 [H, W, 3], made from that input.
  """
  if condition.degradation == CLEAN:
    return made
  return degradations.undo(*condition, made)
