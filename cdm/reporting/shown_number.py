"""Formats a number: title, unit, digits, and which way is better.

Lines, pages and tables for a terminal read the same declaration, so that a
number looks alike wherever it appears.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

ABSENT = '\N{EN DASH}'
Key = TypeVar('Key')


@dataclasses.dataclass(frozen=True)
class ShownNumber:
  """How one number is shown.

  Attributes:
    title: its name as it is printed.
    unit: its unit, or ''.
    form: format specification of the digits.
    higher_is_better: whether a higher value is better.
    scale: the number is shown in multiples of 1 / scale.
    paper: keys under which configs quote the paper's value of the number.
  """

  title: str
  unit: str = ''
  form: str = '.2f'
  higher_is_better: bool = True
  scale: float = 1.0
  paper: tuple[str, ...] = ()

  @property
  def heading(self) -> str:
    """The title with the unit, e.g. 'PSNR, dB'."""
    return f'{self.title}, {self.unit}' if self.unit else self.title

  def text(self, value: float | None, *, sign: bool = False) -> str:
    """Returns a value in the number's format; a dash for None.

    Args:
      value: the value, not yet scaled.
      sign: print a plus sign before a positive value too.
    """
    if value is None:
      return ABSENT
    return f'{value * self.scale:{"+" if sign else ""}{self.form}}'

  def best(self, values: Mapping[Key, float | None]) -> list[Key]:
    """Returns the keys of the best values, as they are printed.

    Values that look equal in print are equally good. [] if fewer than two
    values are known or if all of them look equal, because then none is better.

    Args:
      values: {key: value, not yet scaled, or None}.
    """
    shown = {
      key: float(self.text(value))
      for key, value in values.items()
      if value is not None
    }
    if len(set(shown.values())) < 2:
      return []
    best = (max if self.higher_is_better else min)(shown.values())
    return [key for key, value in shown.items() if value == best]
