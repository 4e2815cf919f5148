"""Builds the first section of the page of a study: its results in short."""

from cdm.evaluation.robustness import scoring, wording
from cdm.evaluation.robustness.report_types import Report
from cdm.reporting import html_page


def build(report: Report) -> list:
  """Returns the section, as the parts of an `html_page.Section`.

  Args:
    report: the content of report.json.
  """
  first = next(iter(report['metrics']))
  clean = report['clean'][first]
  points = [
    html_page.joined(
      html_page.strong(f'{wording.title(first)} on clean inputs: '),
      f'ours {wording.interval(clean["ours"], first)}{wording.unit(first)}, '
      'bicubic '
      f'{wording.interval(clean["bicubic"], first)}{wording.unit(first)}'
      f'{wording.counted(report, first)}.',
    ),
    *worst_degradation(report, first),
  ]
  for division in report['groups']:
    points.append(
      html_page.joined(
        html_page.strong('Groups. '), wording.worst_group(division, first)
      )
    )
  if report['calibration']:
    points.append(
      html_page.joined(
        html_page.strong('Uncertainty. '),
        wording.calibration(report['calibration']),
      )
    )
  parts = [html_page.bullets(points), clean_table(report)]
  if report['degradations']:
    parts.append(fall_table(report, first))
  return parts


def worst_degradation(report: Report, metric: str) -> list[html_page.Html]:
  """Returns [what the stage loses most under]; [] if it loses nothing."""
  falls = [
    kind
    for kind in report['degradations']
    if (kind['fall']['ours']['mean'] or 0) > 0
  ]
  if not falls:
    return []
  worst = max(falls, key=lambda kind: kind['fall']['ours']['mean'] or 0)
  moves = 'falls' if wording.shown(metric).higher_is_better else 'rises'
  return [
    html_page.joined(
      html_page.strong('Loses most under: '),
      f'{worst["title"]} ({worst["at"]}), {wording.title(metric)} {moves} by '
      f'{wording.interval(worst["fall"]["ours"], metric)}'
      f'{wording.unit(metric)}.',
    )
  ]


def clean_table(report: Report) -> html_page.Html:
  """Returns a table of all metrics on clean inputs, the better ones marked."""
  metrics = report['metrics']
  rows, best = [], []
  for i, method in enumerate(scoring.METHODS):
    cells = [method]
    for j, metric in enumerate(metrics, start=1):
      found = {m: report['clean'][metric][m]['mean'] for m in scoring.METHODS}
      summary = report['clean'][metric][method]
      text = wording.number(summary['mean'], metric)
      cells.append(html_page.stacked(text, wording.ends(summary, metric)))
      if method in wording.shown(metric).best(found):
        best.append((i, j))
    rows.append(cells)
  marked = 'The better number of a column is marked.' if best else ''
  fewer = [
    f'{wording.title(metric)}{text}.'
    for metric in metrics
    if (text := wording.counted(report, metric))
  ]
  return html_page.table(
    rows,
    header=['clean inputs', *map(wording.axis, metrics)],
    caption=' '.join(filter(None, [marked, *fewer])),
    best=best,
  )


def fall_table(report: Report, metric: str) -> html_page.Html:
  """Returns a table of the loss at the middle strength of each degradation."""
  shown = wording.shown(metric)
  rows, best = [], []
  for i, kind in enumerate(report['degradations']):
    cells = [kind['title'], kind['at']]
    # A loss is positive for every metric, so the smaller one is better.
    losses = {
      m: None if fall['mean'] is None else sign(shown) * fall['mean']
      for m, fall in kind['fall'].items()
    }
    for j, (method, fall) in enumerate(kind['fall'].items(), start=2):
      text = wording.number(fall['mean'], metric)
      cells.append(html_page.stacked(text, wording.ends(fall, metric)))
      if method in shown.best(losses):
        best.append((i, j))
    rows.append(cells)
  marked = ' The smaller loss of a row is marked.' if best else ''
  kernel = any(kind['name'] == 'kernel' for kind in report['degradations'])
  worst = ' (of filters: the worst)' if kernel else ''
  return html_page.table(
    rows,
    header=['degradation', 'at', 'ours', 'bicubic'],
    caption=f'{shown.title}{wording.unit(metric)} lost against the clean '
    f'input, image by image, at the middle strength{worst}.{marked}',
    best=best,
  )


def sign(shown: wording.ShownNumber) -> int:
  """Returns the factor that makes the smaller loss the better number."""
  return -1 if shown.higher_is_better else 1
