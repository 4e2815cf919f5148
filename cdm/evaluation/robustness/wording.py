"""Formats the numbers of a robustness study as table cells and sentences."""

from collections.abc import Callable

from cdm.evaluation import groups, metrics_table
from cdm.evaluation.robustness.report_types import (
  CalibrationReport,
  DivisionReport,
  Report,
)
from cdm.reporting.shown_number import ShownNumber

MINUS = '\N{MINUS SIGN}'
# A spread-skill ratio this close to 1 is called calibrated.
TOLERANCE = 0.05
# A mean of observed minus nominal coverage this close to 0 is called right.
COVERAGE_TOLERANCE = 0.02


def shown(metric: str) -> ShownNumber:
  """Returns how a metric is shown."""
  return metrics_table.numbers()[metric]


def number(value: float | None, metric: str = 'psnr') -> str:
  """Returns a value in the metric's format; a dash for None."""
  return shown(metric).text(value).replace('-', MINUS)


def signed(value: float | None, metric: str = 'psnr') -> str:
  """Returns a value in the metric's format with its sign; a dash for None."""
  return shown(metric).text(value, sign=True).replace('-', MINUS)


def interval(
  summary: groups.Summary | groups.Gap,
  metric: str = 'psnr',
  form: Callable[[float | None, str], str] = number,
) -> str:
  """Returns a mean with its interval: '24.16 [23.80, 24.51]'.

  Args:
    summary: the mean and its interval.
    metric: the metric, whose format is taken.
    form: `number` or `signed`.
  """
  text = form(summary['mean'], metric)
  return f'{text} {ends(summary, metric, form)}'.rstrip()


def ends(
  summary: groups.Summary | groups.Gap,
  metric: str = 'psnr',
  form: Callable[[float | None, str], str] = number,
) -> str:
  """Returns the interval alone, '[23.80, 24.51]'; '' if there is none.

  Args:
    summary, metric, form: see `interval`.
  """
  if summary['low'] is None:
    return ''
  return f'[{form(summary["low"], metric)}, {form(summary["high"], metric)}]'


def title(metric: str) -> str:
  """Returns the name of a metric as it is printed, e.g. 'PSNR'."""
  return shown(metric).title


def unit(metric: str) -> str:
  """Returns the unit with a space before it, e.g. ' dB'; '' without one.

  A multiple, such as the 1e-5 of consistency, stands only behind the title.
  """
  number = shown(metric)
  return f' {number.unit}' if number.unit and number.scale == 1 else ''


def axis(metric: str) -> str:
  """Returns the label of a metric's axis, e.g. 'PSNR, dB'."""
  return shown(metric).heading


def counted(report: Report, metric: str) -> str:
  """Returns ' over 21 of 22 images, 1 identical', or '' if all are counted.

  Args:
    report: the content of report.json.
    metric: a metric of pairs.
  """
  total, count = report['n'], report['counts'].get(metric, report['n'])
  if count == total:
    return ''
  return f' over {count:,} of {total:,} images, {total - count:,} identical'


def worst_group(division: DivisionReport, metric: str) -> str:
  """Returns sentences about the worst group of a division of the images.

  Args:
    division: the groups, compared.
    metric: the metric that decides. The worst groups by other columns are named
      too if their difference is significant.
  """
  name, gaps = division['by'], division['gaps']
  if metric not in gaps:
    return (
      f'By {name}: fewer than two groups have {groups.FEWEST} images or more, '
      'so no group is called worse than another.'
    )
  gap = gaps[metric]
  text = f'By {name}: worst served is {quoted(gap["group"])}, '
  text += f'{shortfall(metric, gap, metric)} against all others'
  if not gap['sure']:
    text += f'; for the worst of {count_compared(division)} that may be chance'
  others = [
    f'{quoted(other["group"])}, {shortfall(column, other, metric)}'
    for column, other in gaps.items()
    if column != metric and other['sure']
  ]
  if others:
    text += f'. Surely worse than all others: {"; ".join(others)}'
  return text + '.'


# Columns of a table of groups that are derived from the metric that decides.
COLUMNS = {'gain': 'gain over bicubic', 'fall': 'lost when degraded'}


def shortfall(column: str, gap: groups.Gap, metric: str) -> str:
  """Returns how far a group is off: 'SSIM −0.046 [−0.068, −0.023]'.

  Args:
    column: a metric or a key of `COLUMNS`.
    gap: the gap of the worst group in this column.
    metric: the metric that the `COLUMNS` are derived from.
  """
  metric = metric if column in COLUMNS else column
  name = COLUMNS.get(column) or title(column)
  return f'{name} {interval(gap, metric, signed)}{unit(metric)}'


def quoted(text: str) -> str:
  """Returns the text in quotation marks."""
  return f'\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}'


def count_compared(division: groups.Comparison) -> int:
  """Returns the number of groups that are large enough to be compared."""
  return sum(row['enough'] for row in division['rows'])


def too_small(division: DivisionReport) -> str | None:
  """Returns a warning that names the groups that are too small, or None."""
  small = division['too_small']
  if not small:
    return None
  named = ', '.join(small[:5]) + (', ...' if len(small) > 5 else '')
  many = f'{len(small)} groups have' if len(small) > 1 else 'One group has'
  return (
    f'{many} fewer than {groups.FEWEST} images ({named}), too few to compare. '
    'They are shown in grey and never called the worst. Give a larger --num.'
  )


def calibration(measured: CalibrationReport) -> str:
  """Returns the verdict on the calibration in one sentence.

  Args:
    measured: the calibration of the draws.
  """
  ratio = measured['spread_skill']
  if ratio is None:
    return 'The draws equal the originals; there is no error to predict.'
  around = ''
  if measured['interval']:
    low, high = (number(x) for x in measured['interval'])
    around = f' [{low}, {high}]'
  start = (
    f'Spread-skill ratio of {measured["k"]} draws {number(ratio)}{around} '
    '(1 is calibrated), '
  )
  if abs(ratio - 1) <= TOLERANCE:
    verdict = 'calibrated on the whole: the draws spread as far as they err'
  elif ratio == 0.0:
    verdict = 'overconfident: the draws do not differ at all'
  elif ratio < 1:
    verdict = (
      'overconfident: the draws differ from each other '
      f'{number(1 / ratio)} times less than their error asks for'
    )
  else:
    verdict = (
      'underconfident: the draws differ from each other '
      f'{number(ratio)} times more than their error asks for'
    )
  return f'{start}{verdict}; {coverage(measured)}'


def coverage(measured: CalibrationReport) -> str:
  """Returns how often the intervals cover the original, as half a sentence.

  It is the second half of `calibration`. If the ratio and the coverage
  contradict each other, it says what that means.

  Args:
    measured: the calibration of the draws.
  """
  bias = measured['coverage_bias']
  if abs(bias) <= COVERAGE_TOLERANCE:
    return 'central intervals hold the original as often as they should.'
  often = 'less' if bias < 0 else 'more'
  text = (
    'central intervals hold the original '
    f'{100 * abs(bias):.1f} points {often} often than they should'
  )
  ratio = measured['spread_skill']
  if bias > 0 and ratio is not None and ratio < 1 - TOLERANCE:
    text += ': most values are nearer than promised, few are far off'
  return text + '.'
