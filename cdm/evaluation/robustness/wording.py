"""Facts in sentences and table cells."""

from cdm.evaluation import groups
from cdm.evaluation.robustness import aggregate

MINUS = '\N{MINUS SIGN}'
FORMS = {'consistency': '.1f', 'ssim': '.3f', 'lpips': '.3f', 'kid': '.4f'}
FORMS |= {'ssim_gaussian': '.3f', 'ms_ssim': '.3f'}
# As [SR3] tab. 1 prints it.
SCALES = {'consistency': 1e5}
# A ratio of spread to error that is closer to 1 is called calibrated.
TOLERANCE = 0.05
COVERAGE_TOLERANCE = 0.02  # likewise, of the mean of observed less nominal


def number(value, metric='psnr'):
  """-> a number as it is read, a dash for None."""
  if value is None:
    return '\N{EN DASH}'
  value *= SCALES.get(metric, 1.0)
  return f'{value:{FORMS.get(metric, ".2f")}}'.replace('-', MINUS)


def signed(value, metric='psnr'):
  """-> the same with its sign."""
  if value is None:
    return '\N{EN DASH}'
  value *= SCALES.get(metric, 1.0)
  return f'{value:+{FORMS.get(metric, ".2f")}}'.replace('-', MINUS)


def interval(found, metric='psnr', form=number):
  """{'mean', 'low', 'high'} -> '24.16 [23.80, 24.51]'."""
  text = form(found['mean'], metric)
  return f'{text} {ends(found, metric, form)}'.rstrip()


def ends(found, metric='psnr', form=number):
  """-> '[23.80, 24.51]'; nothing where there is no interval."""
  if found['low'] is None:
    return ''
  return f'[{form(found["low"], metric)}, {form(found["high"], metric)}]'


def title(metric):
  """-> 'PSNR'."""
  return (aggregate.METRICS | aggregate.OF_SETS)[metric][0]


def unit(metric):
  """-> 'dB', with a space before it; '' where there is none."""
  text = (aggregate.METRICS | aggregate.OF_SETS)[metric][1]
  return f' {text}' if text == 'dB' else ''


def axis(metric):
  """-> 'PSNR, dB'."""
  name, text, _ = (aggregate.METRICS | aggregate.OF_SETS)[metric]
  return f'{name}, {text}' if text else name


def worst(division, metric):
  """-> sentences about the worst groups of a division.

  Args:
    division: of `aggregate`.
    metric: the one that decides; others are named where they are sure.
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
    text += f'; for the worst of {judged(division)} that may be chance'
  others = [
    f'{quoted(other["group"])}, {shortfall(column, other, metric)}'
    for column, other in gaps.items()
    if column != metric and other['sure']
  ]
  if others:
    text += f'. Surely worse than all others: {"; ".join(others)}'
  return text + '.'


# Columns of groups that are no metric.
COLUMNS = {'gain': 'gain over bicubic', 'fall': 'lost when degraded'}


def shortfall(column, gap, metric):
  """-> 'SSIM −0.046 [−0.068, −0.023]'."""
  metric = metric if column in COLUMNS else column
  name = COLUMNS.get(column) or title(column)
  return f'{name} {interval(gap, metric, signed)}{unit(metric)}'


def quoted(text):
  """-> the text in quotation marks."""
  return f'\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}'


def judged(division):
  """-> how many groups are large enough."""
  return sum(row['enough'] for row in division['rows'])


def too_small(division):
  """-> a warning, or None."""
  small = division['too_small']
  if not small:
    return None
  named = ', '.join(small[:5]) + (', ...' if len(small) > 5 else '')
  many = f'{len(small)} groups have' if len(small) > 1 else 'One group has'
  return (
    f'{many} fewer than {groups.FEWEST} images ({named}): too few to say '
    'anything about. Shown in grey, never called the worst. Give a larger '
    '--num.'
  )


def calibration(found):
  """-> one sentence of verdict."""
  ratio = found['spread_skill']
  if ratio is None:
    return 'The draws hit the originals exactly; there is no error to foretell.'
  around = ''
  if found['interval']:
    low, high = (number(x) for x in found['interval'])
    around = f' [{low}, {high}]'
  start = (
    f'Spread-skill ratio of {found["k"]} draws {number(ratio)}{around} '
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
  return f'{start}{verdict}; {covered(found)}'


def covered(found):
  """-> half a sentence about central intervals, and what both say together."""
  bias = found['coverage_bias']
  if abs(bias) <= COVERAGE_TOLERANCE:
    return 'central intervals hold the original as often as they should.'
  often = 'less' if bias < 0 else 'more'
  text = (
    'central intervals hold the original '
    f'{100 * abs(bias):.1f} points {often} often than they should'
  )
  if bias > 0 and found['spread_skill'] < 1 - TOLERANCE:
    text += ': most values are nearer than promised, few are far off'
  return text + '.'
