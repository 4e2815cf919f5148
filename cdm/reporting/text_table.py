"""Formats numbers and aligned columns of text for a terminal."""

from collections.abc import Sequence
from typing import Any


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns one line per row, with the cells of each column left-aligned."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  ]


def format_value(value: Any) -> str:
  """Formats a value for people: 550,000,000; 2.68e-05; text unchanged."""
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  if isinstance(value, dict):
    return ', '.join(
      f'{key} {format_value(each)}' for key, each in value.items()
    )
  return str(value)


def format_si(number: float, unit: str) -> str:
  """Formats a number with an SI prefix, e.g. '1.23 GFLOP'."""
  for power, prefix in enumerate('EPTGMk'):
    size = 1e18 / 1e3**power
    if number >= size:
      value = number / size
      digits = f'{value:.3g}' if value < 100 else f'{value:.0f}'
      return f'{digits} {prefix}{unit}'
  return f'{number} {unit}'
