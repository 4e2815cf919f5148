"""Columns of text and numbers for a terminal."""


def columns(rows):
  """-> one line per row, cells of a column aligned."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  ]


def plain(value):
  """-> a value as people write it: 550,000,000; 2.68e-05; text as it is."""
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  if isinstance(value, dict):
    return ', '.join(f'{key} {plain(each)}' for key, each in value.items())
  return str(value)


def si(number, unit):
  """-> '1.23 GFLOP' and the like: three digits and a prefix."""
  for prefix, size in (('T', 1e12), ('G', 1e9), ('M', 1e6), ('k', 1e3)):
    if number >= size:
      value = number / size
      digits = f'{value:.3g}' if value < 100 else f'{value:.0f}'
      return f'{digits} {prefix}{unit}'
  return f'{number} {unit}'
