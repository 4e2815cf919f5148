"""Draws the quality of a sweep's settings against what an image costs.

The cost is the number of network evaluations of a single stage. Those of a
cascade's stages are of different networks, so that it is the FLOPs of them all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cdm.evaluation import metrics_table
from cdm.reporting import html_page, line_chart

FILE = 'quality.html'
# Keys whose values follow one another along a line: the last words of those
# that change how much an image costs.
ALONG = ('steps', 'num_steps', 'spacing', 'start_level')


def page(
  rows: Sequence[Mapping[str, Any]], metric: str, best: int
) -> str | None:
  """Returns the page of a sweep; None if no row knows its cost.

  Args:
    rows: the rows, see `row_types.SweepRow`.
    metric: name of a metric of sets, which is the quality.
    best: index of the best row.
  """
  name, shown = next(iter(metrics_table.SETS[metric].numbers.items()))
  lines = series(rows, name)
  if not lines:
    return None
  first = rows[best]
  is_cascade = any(len(row.get('cost', ())) > 1 for row in rows)
  unit = 'GFLOPs' if is_cascade else 'network evaluations'
  way = 'higher' if shown.higher_is_better else 'lower'
  values = [row[name] for row in rows if 'cost' in row]
  wide = line_chart.LEFT + line_chart.RIGHT
  wide += sum(48 + line_chart.LETTER * len(text) for text in lines)
  marks = []
  if 'cost' in first:
    marks.append((cost_of(first['cost']), first[name]))
  chart = html_page.curve_svg(
    lines,
    caption=(
      f'{shown.heading} of {first["n"]:,} images against what one of them '
      f'costs, in {unit} on a logarithmic axis; {way} is better. A line '
      'joins the settings that differ in their number of steps only. The ring '
      'is the best setting.'
    ),
    axes=line_chart.Axes(
      x_label=f'{unit} per image',
      y_label=f'{shown.heading} ({way} is better)',
      log_x=True,
      log_y=min(values) > 0 and max(values) > 10 * min(values),
      dots=True,
    ),
    smoothing=0.0,
    size=(max(line_chart.WIDTH, round(wide)), 360),
    marks=marks,
  )
  table = html_page.table(
    [
      [
        *(value for _, value in row['setting']),
        evaluations_text(row.get('cost')),
        *([gflops_of(row['cost'])] if is_cascade and 'cost' in row else []),
        row[name],
      ]
      for row in rows
      if 'cost' in row
    ],
    header=[
      *(key for key, _ in first['setting']),
      'network evaluations',
      *(['GFLOPs'] if is_cascade else []),
      shown.heading,
    ],
    mark=best if all('cost' in row for row in rows) else None,
  )
  return html_page.build_page(
    'Quality against cost',
    [('The settings of a sweep', [chart, table])],
    subtitle=f'{first["samples"]}, compared with {first["reference"]}',
    footer='Made by cdm sweep. rows.jsonl has all numbers.',
  )


def series(
  rows: Sequence[Mapping[str, Any]], name: str
) -> dict[str, list[tuple[float, float]]]:
  """Returns {label: points (cost, quality), the cheapest first}.

  A line has the settings that differ in keys of `ALONG` alone. Its label holds
  the other values, without their keys if one key says all.

  Args:
    rows: the rows; those without a cost are left out.
    name: the number of a row that is the quality.
  """
  lines: dict[str, list[tuple[float, float]]] = {}
  for row in rows:
    if 'cost' not in row:
      continue
    others = [
      (key, value)
      for key, value in row['setting']
      if key.rpartition('.')[2] not in ALONG
    ]
    label = ', '.join(f'{key}={value}' for key, value in others)
    if len(others) == 1:
      label = others[0][1]
    point = cost_of(row['cost']), row[name]
    lines.setdefault(label or 'all settings', []).append(point)
  return {label: sorted(points) for label, points in lines.items()}


def cost_of(cost: Sequence[Mapping[str, Any]]) -> float:
  """Returns the cost of an image: evaluations, or GFLOPs of a cascade."""
  return cost[0]['evaluations'] if len(cost) == 1 else gflops_of(cost)


def gflops_of(cost: Sequence[Mapping[str, Any]]) -> float:
  """Returns the GFLOPs of an image in all stages."""
  return sum(stage['flops'] for stage in cost) / 1e9


def evaluations_text(cost: Sequence[Mapping[str, Any]] | None) -> str:
  """Returns the network evaluations as text: '15', or 'base 15, sr 8'."""
  if cost is None:
    return '\u2013'
  if len(cost) == 1:
    return f'{cost[0]["evaluations"]}'
  return ', '.join(f'{stage["name"]} {stage["evaluations"]}' for stage in cost)
