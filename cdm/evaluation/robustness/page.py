"""Builds the HTML report of a robustness study, one self-contained page.

In these functions `report` is the content of report.json, and `examination`
holds the images of the study. A list that a function returns has the parts of
an `html_page.Section`.
"""

from collections.abc import Sequence

import numpy as np

from cdm.evaluation import groups
from cdm.evaluation.robustness import scoring, summary, wording
from cdm.evaluation.robustness.conditions import CLEAN, Condition
from cdm.evaluation.robustness.report_types import (
  CalibrationReport,
  DegradationReport,
  DivisionReport,
  Report,
)
from cdm.evaluation.robustness.stage_images import StageImages
from cdm.ops import degradations
from cdm.reporting import (
  bar_chart,
  contact_sheet,
  html_page,
  image_files,
  line_chart,
)

SIZE = (360, 240)  # of a chart in pixels; legible on a phone, one below another
SIDE = 112  # approximate side of an image in a strip, in screen pixels
MOST = 128  # a larger image is cropped to its middle, of this side in pixels
ABOUT = {
  'noise': 'Gaussian noise on the low-res input. Its sigma is in grey levels '
  'of 255; every strength has the same noise field, scaled.',
  'blur': 'Gaussian blur of the low-res input. Its sigma is in low-res '
  'pixels; the border is reflected.',
  'jpeg': 'The low-res input goes through a JPEG file with 4:2:0 chroma.',
  'brightness': 'A number of grey levels is added to the low-res input, and '
  'the result is clipped. Super-resolution should keep the brightness of its '
  'input, so the number is subtracted from its output before it is compared '
  'with the original.',
  'contrast': 'The low-res input is drawn towards mid-grey, 127.5, by a '
  'factor. Super-resolution should keep the contrast of its input, so its '
  'output is stretched back before it is compared with the original.',
  'kernel': 'The low-res input is made from the original by another filter '
  'than in training. Filters have no order, so the points are not joined.',
}


def build(
  report: Report, examination: scoring.Examination, *, title: str
) -> str:
  """Builds the page.

  Args:
    report: the content of report.json.
    examination: the examination, which kept the images.
    title: title of the page.

  Returns:
    an HTML document.
  """
  sections = [html_page.Section('In short', summary.build(report))]
  sections += [
    html_page.Section(
      kind['title'], degradation_section(kind, report, examination)
    )
    for kind in report['degradations']
  ]
  sections.append(html_page.Section('Groups', groups_section(report)))
  if report['calibration']:
    parts = uncertainty_section(report['calibration'], examination)
    sections.append(html_page.Section('Uncertainty', parts))
  sections.append(html_page.Section('What was run', settings_section(report)))
  return html_page.build_page(
    title,
    sections,
    subtitle=f'{report["n"]:,} images, {report["subject"]}',
    footer='Intervals are 95%, by bootstrap over images.',
  )


def degradation_section(
  kind: DegradationReport,
  report: Report,
  examination: scoring.Examination,
) -> list:
  """Returns the section about one degradation.

  kind: the scores under that degradation.
  """
  charts = [chart(kind, metric) for metric in report['metrics']]
  strips = [strip(kind, record, examination) for record in examination.shown]
  return [ABOUT[kind['name']], html_page.row(*charts), *strips]


def chart(kind: DegradationReport, metric: str) -> html_page.Html:
  """Returns a chart of a metric over the strengths, ours and bicubic."""
  series, bands = {}, {}
  scale = wording.shown(metric).scale
  filters = kind['name'] == degradations.KERNEL
  for method, points in kind['curves'][metric].items():
    series[method] = [
      (i, point['mean'] * scale)
      for i, point in enumerate(points)
      if point['mean'] is not None
    ]
    bands[method] = [
      (i, point['low'] * scale, point['high'] * scale)
      for i, point in enumerate(points)
      if point['low'] is not None and point['high'] is not None
    ]
  drawing = line_chart.svg(
    series,
    line_chart.Axes(
      # The axis of the filters has no label, which would repeat the heading.
      x_label='' if filters else kind['axis'],
      y_label=wording.axis(metric),
      x_names=['clean', *kind['values']],
    ),
    smoothing=0,
    size=SIZE,
    bands=bands,
    joined=not filters,
  )
  if drawing is None:
    return html_page.paragraph(
      f'{wording.title(metric)}: no value was measured.'
    )
  return html_page.figure(drawing)


def strip(
  kind: DegradationReport, record: int, examination: scoring.Examination
) -> html_page.Html:
  """Returns a strip of one image: given, bicubic and ours at every strength.

  record: index of the image in the data.
  """
  opened = examination.opened
  conditions = [Condition(CLEAN)]
  values = examination.chosen[kind['name']]
  conditions += [Condition(kind['name'], value) for value in values]
  rows, names = [], []
  factor = opened.upscale.factor
  side = min(opened.upscale.image_size, MOST // factor * factor)
  scale = max(1, round(SIDE / side))
  back = ', undone' if kind['photometric'] else ''
  versions = [('given', 'given')]
  versions += [(name, name + back) for name in ('bicubic', 'ours')]
  versions.append(('original', 'original'))
  for version, name in versions:
    row = []
    for i, condition in enumerate(conditions):
      if version == 'original' and i:
        row.append(None)
        continue
      image = examination.read_image(record, condition, version)
      wide = side // factor if version == 'given' else side
      row.append(image_files.png_bytes(middle(image, wide)))
    rows.append(row)
    names.append(name)
  return html_page.strip(
    rows,
    heads=['clean', *kind['values']],
    names=names,
    scale=[scale * factor, scale, scale, scale],
    caption=f'{image_caption(opened, record)}; {kind["axis"]}.',
  )


def middle(image: np.ndarray, side: int) -> np.ndarray:
  """Returns the middle `side` x `side` pixels of an image.

  Args:
    image: [H, W, C], no smaller than `side`.
    side: pixels.
  """
  top, left = ((n - side) // 2 for n in image.shape[:2])
  return image[top : top + side, left : left + side]


def image_caption(opened: StageImages, record: int) -> str:
  """Returns the caption of an image: 'Image 17', or 'Image 17 (a/b.png)'."""
  if opened.files:
    return f'Image {record} ({opened.files[record]})'
  return f'Image {record}'


def groups_section(report: Report) -> list:
  """Returns the section about groups, with a table for each division."""
  if not report['groups']:
    return [
      'The data has one class and no label file was given (--groups=FILE), so '
      'there are no groups to compare.'
    ]
  first = report['metrics'][0]
  parts = [
    'Scores on clean inputs, the worst group first. Groups differ in how '
    'hard their images are: the gain over bicubic, on the same images, is '
    'what the stage itself adds.'
  ]
  for division in report['groups']:
    parts.append(html_page.subheading(f'By {division["by"]}'))
    parts.append(wording.worst_group(division, first))
    warning = wording.too_small(division)
    if warning:
      parts.append(html_page.notice(warning))
    parts.append(group_table(division, report, first))
  return parts


def group_table(
  division: DivisionReport, report: Report, first: str
) -> html_page.Html:
  """Returns the table of the groups of one division.

  Args:
    division: the groups, compared.
    first: the metric that decides.
  """
  titles, gaps = wording.COLUMNS, division['gaps']
  columns = groups.columns_of(division['rows'][0])
  rows, faint, mark = [], [], None
  for i, row in enumerate(division['rows']):
    cells = [html_page.stacked(row['group'], ''), row['n']]
    for column in columns:
      relative = column in titles
      metric = first if relative else column
      form = wording.signed if column == 'gain' else wording.number
      summary = groups.summary_of(row, column)
      text = form(summary['mean'], metric)
      if column in gaps and gaps[column]['group'] == row['group']:
        text += ' \N{BLACK DOWN-POINTING SMALL TRIANGLE}'
      below = wording.ends(summary, metric, form)
      cells.append(html_page.stacked(text, below))
    rows.append(cells)
    if not row['enough']:
      faint.append(i)
    elif i == 0 and gaps:
      mark = i
  heads = [titles.get(c) or wording.axis(c) for c in columns]
  return html_page.table(
    rows,
    header=[division['by'], 'images', *heads],
    caption=group_caption(division, columns, first),
    mark=mark,
    faint=faint,
  )


def group_caption(
  division: DivisionReport, columns: Sequence[str], first: str
) -> str:
  """Returns the caption of a table of groups, about what it really shows.

  Args:
    division: the groups, compared.
    columns: the columns of scores.
    first: the metric that decides.
  """
  parts = []
  if division['gaps']:
    parts.append('\N{BLACK DOWN-POINTING SMALL TRIANGLE} worst of its column.')
  relative = [
    text
    for column, text in (
      ('gain', 'the gain over bicubic'),
      (
        'fall',
        'what is lost at the middle strength of the degradations on average',
      ),
    )
    if column in columns
  ]
  if relative:
    text = f'{" and ".join(relative)}: {wording.axis(first)}.'
    parts.append(text[0].upper() + text[1:])
  return ' '.join(parts)


def uncertainty_section(
  seen: CalibrationReport, examination: scoring.Examination
) -> list:
  """Returns the section about the calibration of the draws."""
  k = seen['k']
  numbers = [
    ['spread-skill ratio', wording.number(seen['spread_skill']), '1'],
    ['error of coverage, mean', f'{seen["coverage_error"]:.3f}', '0'],
    [
      'spread of the draws, grey levels',
      wording.number(seen['rms_spread']),
      '',
    ],
    [
      'error of their mean, grey levels',
      wording.number(seen['rmse_of_mean']),
      '',
    ],
    ['PSNR of one draw, dB', wording.interval(seen['psnr_of_one']), ''],
    ['PSNR of their mean, dB', wording.interval(seen['psnr_of_mean']), ''],
  ]
  binned = [(p, a) for p, a, _ in seen['reliability']]
  charts = []
  if binned:
    charts.append(
      html_page.curve_svg(
        {'measured': binned},
        axes=line_chart.Axes(
          x_label='error predicted by the spread, grey levels',
          y_label='error, grey levels',
          diagonal=True,
        ),
        smoothing=0,
        size=SIZE,
        caption='Reliability, by bins of the spread: above the dashed line the '
        'draws predict too little error, below it too much.',
      )
    )
  else:
    charts.append(html_page.paragraph('Reliability by bins needs three draws.'))
  charts.append(
    html_page.curve_svg(
      {'measured': [(0.0, 0.0), *seen['coverage'], (1.0, 1.0)]},
      axes=line_chart.Axes(
        x_label='nominal coverage', y_label='observed coverage', diagonal=True
      ),
      smoothing=0,
      size=SIZE,
      caption='Central intervals of the draws: below the dashed line the '
      'original lies outside more often than it should.',
    )
  )
  charts.append(
    html_page.figure(
      bar_chart.svg(
        seen['ranks'],
        x_label=f'draws of {k} that lie below the original',
        y_label='share of the values',
        ideal=1 / (k + 1),
        size=SIZE,
      ),
      'Rank histogram: flat is calibrated, high ends are overconfident, a '
      'high middle is underconfident, a slope is a bias.',
    )
  )
  return [
    wording.calibration(seen),
    f'{k} samples were drawn of every clean input. If the original could be '
    'one more of them, its distance from their mean is as large as their '
    'spread predicts. All numbers are corrected for the finite number of '
    'draws.',
    html_page.table(numbers, header=['', 'found', 'calibrated']),
    html_page.row(*charts),
    draws_strip(examination, k),
  ]


def draws_strip(examination: scoring.Examination, k: int) -> html_page.Html:
  """Returns a strip of each shown image: one draw, mean, spread and error."""
  opened, rows, names = examination.opened, [], []
  statistics = {n: examination.read_maps(n, k) for n in examination.shown}
  top = max(
    float(np.quantile(level(values), 0.995))
    for of_image in statistics.values()
    for values in (of_image.std, of_image.error)
  )
  side = min(opened.upscale.image_size, MOST)
  clean = Condition(CLEAN)
  for record, of_image in statistics.items():
    row = [
      examination.read_image(record, clean, 'original'),
      examination.read_image(record, clean, 'ours'),
      np.floor(of_image.mean + 0.5).astype(np.uint8),
      contact_sheet.heat_map(level(of_image.std), top),
      contact_sheet.heat_map(level(of_image.error), top),
    ]
    rows.append([image_files.png_bytes(middle(x, side)) for x in row])
    names.append(f'{record}')
  return html_page.strip(
    rows,
    heads=['original', 'one draw', f'mean of {k}', 'spread', 'error'],
    names=names,
    scale=max(1, round(SIDE / side)),
    caption='Spread is the standard deviation of the draws, error the distance '
    f'of their mean from the original; black is 0, pale yellow {top:.0f} grey '
    'levels, root mean square over the channels.',
  )


def level(values: np.ndarray) -> np.ndarray:
  """Returns the root mean square over the channels, [H, W, 3] -> [H, W]."""
  return np.sqrt((np.asarray(values, np.float64) ** 2).mean(axis=-1))


def settings_section(report: Report) -> list:
  """Returns the last section: all that the numbers depend on."""
  return [
    html_page.code(report['command']),
    html_page.table(
      [[key, value] for key, value in report['run'].items()], header=['', '']
    ),
    html_page.bullets(
      html_page.joined(html_page.strong(f'{wording.title(name)}: '), text)
      for name, text in report['conventions'].items()
      if name in report['metrics']
    ),
  ]
