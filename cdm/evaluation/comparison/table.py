"""Writes the table of a comparison as Markdown and as JSON values."""

from collections.abc import Sequence
from typing import Any

from cdm.evaluation import metrics_table
from cdm.evaluation.comparison.paper_numbers import Published, plain
from cdm.evaluation.comparison.rows import Row
from cdm.reporting.shown_number import ShownNumber
from cdm.reporting.text_table import format_si

DASH = '\N{EN DASH}'
# In the order of [SR3] tab. 1; those that were computed are shown. The JSON has
# the other metrics of pairs too.
METRICS = ('psnr', 'ssim', 'consistency', 'lpips', 'fd')
TITLES = {
  'nearest': 'nearest',
  'bicubic': 'bicubic',
  'nearest_neighbour': 'nearest neighbour',
}


def shown_metrics(rows: Sequence[Row]) -> list[str]:
  """Returns the metrics that any method has, in the order of the columns."""
  return [
    name
    for name in METRICS
    if any(row['scores'].get(name) is not None for row in rows)
  ]


def best_of(rows: Sequence[Row], metric: str) -> set[str]:
  """Returns the methods whose shown number is the best of a metric."""
  number = metrics_table.numbers()[metric]
  known = {
    row['method']: _shown(row, metric, number)
    for row in rows
    if row['scores'].get(metric) is not None
  }
  if len(known) < 2:
    return set()
  choose = max if number.higher_is_better else min
  best = choose(known.values(), key=float)
  return {name for name, text in known.items() if text == best}


def _shown(row: Row, metric: str, number: ShownNumber) -> str:
  return number.text(row['scores'][metric])


def title(row: Row) -> str:
  """Returns how a method is called in the table."""
  return TITLES.get(row['method'], row['method'])


def markdown(rows: Sequence[Row], *, published: Published | None = None) -> str:
  """Returns the table in Markdown; the best of each column is bold.

  Args:
    rows: one row for each method, in their order.
    published: numbers of a paper. Methods that are not among `rows` get a line
      of their own.
  """
  metrics = shown_metrics(rows)
  numbers = metrics_table.numbers()
  heads = [
    f'{numbers[m].heading} {"↑" if numbers[m].higher_is_better else "↓"}'
    for m in metrics
  ]
  stated = [m for m in metrics if published and m in published.metrics]
  heads += [f'{numbers[m].title} of the paper' for m in stated]
  heads += ['time per image', 'parameters', 'training', 'hours']
  best = {metric: best_of(rows, metric) for metric in metrics}
  lines = [_line(['method', *heads]), '|---' * (len(heads) + 1) + '|']
  for row in rows:
    cells = [_cell(row, m, numbers[m], best[m]) for m in metrics]
    cells += [_of_paper(published, row['method'], m) for m in stated]
    lines.append(_line([title(row), *cells, *costs(row)]))
  for name in others(rows, published) if stated else ():
    if published is not None:
      cells = [DASH] * len(metrics)
      cells += [_of_paper(published, name, m) for m in stated]
      lines.append(_line([f'{name}, not run here', *cells, *[DASH] * 4]))
  if published is not None and stated:
    note = 'Other images and other networks than ours'
    lines += ['', f'The paper: {published.task}. {note}.']
  return '\n'.join(lines) + '\n'


def others(rows: Sequence[Row], published: Published | None) -> list[str]:
  """Returns the methods of a paper that are not among the rows."""
  if published is None:
    return []
  ours = {plain(row['method']) for row in rows}
  return [name for name in published.rows if plain(name) not in ours]


def costs(row: Row) -> list[str]:
  """Returns the cells of time per image, parameters, training and hours."""
  cost: dict[str, Any] = row.get('cost') or {}
  seconds = row.get('seconds_per_image')
  return [
    DASH if seconds is None else duration(seconds),
    f'{cost["parameters"]:,}' if cost.get('parameters') else DASH,
    format_si(cost['flops'], 'FLOP') if cost.get('flops') else DASH,
    f'{cost["seconds"] / 3600:.2f}' if cost.get('seconds') else DASH,
  ]


def duration(seconds: float) -> str:
  """Returns a time with three digits: '1.23 ms', '4.56 s'."""
  return f'{seconds:.3g} s' if seconds >= 1 else f'{1000 * seconds:.3g} ms'


def _line(cells):
  return '| ' + ' | '.join(cells) + ' |'


def _cell(row, metric, number, best):
  if row['scores'].get(metric) is None:
    return DASH
  text = _shown(row, metric, number)
  return f'**{text}**' if row['method'] in best else text


def _of_paper(published, method, metric):
  return published.of(method, metric) or DASH
