"""Rows -> everything that the page shows, as one JSON-able dict.

Pure: what was drawn and scored goes in, means, intervals, worst groups and the
verdict on calibration come out.
"""

import numpy as np

from cdm.evaluation import groups
from cdm.evaluation.metrics import bootstrap, calibration
from cdm.evaluation.robustness import scoring
from cdm.ops import degradations

# Metric -> (title, unit, whether more is better).
METRICS = {
  'psnr': ('PSNR', 'dB', True),
  'psnr_y': ('PSNR of luma', 'dB', True),
  'ssim': ('SSIM', '', True),
  'ssim_gaussian': ('SSIM, Gaussian window', '', True),
  'ms_ssim': ('MS-SSIM', '', True),
  'consistency': ('Consistency', '1e-5', False),
  'lpips': ('LPIPS', '', False),
}
OF_SETS = {
  'fid': ('FID', '', False),
  'kid': ('KID', '', False),
}


def collect(rows, spreads, *, records, chosen, metrics, divisions, draws, sets):
  """Sums everything up.

  Args:
    rows: {(record, cell key): row}, see `scoring`.
    spreads: {record: row of draws}.
    records: the images.
    chosen: {degradation: values}.
    metrics: names of `METRICS` and `OF_SETS`; the first one decides.
    divisions: {what by: {group: [record, ...]}}.
    draws: k, or 0.
    sets: {(cell key, method): {metric of sets: value}}.

  Returns:
    dict with 'metrics', 'clean', 'degradations', 'groups', 'calibration'.
  """
  table = Table(rows, sets, records)
  per_image = [m for m in metrics if m in METRICS]
  kinds = [
    degradation(name, values, metrics, table) for name, values in chosen.items()
  ]
  return {
    'n': len(records),
    'metrics': list(metrics),
    'clean': {
      metric: {m: table.mean(scoring.CLEAN, m, metric) for m in scoring.METHODS}
      for metric in metrics
    },
    'degradations': kinds,
    'groups': [
      by_group(name, division, per_image, table, kinds)
      for name, division in divisions.items()
    ],
    'calibration': spread(spreads, records, draws) if draws else None,
  }


class Table:
  """Scores by cell, method, metric and record."""

  def __init__(self, rows, sets, records):
    self._rows, self._sets, self._records = rows, sets, records

  def values(self, cell, method, metric):
    """-> {record: score or None}."""
    return {n: self._rows[n, cell][method].get(metric) for n in self._records}

  def mean(self, cell, method, metric):
    """-> {'mean', 'low', 'high'}; of a metric of sets the mean alone."""
    if metric in OF_SETS:
      value = self._sets.get((cell, method), {}).get(metric)
      return {'mean': value, 'low': None, 'high': None}
    return groups.summary(list(self.values(cell, method, metric).values()))

  def fall(self, cell, method, metric):
    """-> {record: how much worse than on the clean input}, pair by pair."""
    sign = 1 if METRICS[metric][2] else -1
    clean = self.values(scoring.CLEAN, method, metric)
    found = self.values(cell, method, metric)
    return {
      n: None if None in (clean[n], found[n]) else sign * (clean[n] - found[n])
      for n in self._records
    }


def degradation(name, values, metrics, table):
  """-> facts about one kind of degradation."""
  kind = degradations.KINDS[name]
  keys = [scoring.Cell(name, value).key for value in values]
  cells = [scoring.CLEAN, *keys]
  first = next(m for m in metrics if m in METRICS)
  falls = [
    groups.summary(list(table.fall(key, 'ours', first).values()))
    for key in keys
  ]
  # Filters have no order, so the worst of them stands for the middle.
  middle = len(values) // 2
  if name == degradations.KERNEL:
    means = [-np.inf if f['mean'] is None else f['mean'] for f in falls]
    middle = int(np.argmax(means))
  baseline = table.fall(keys[middle], 'bicubic', first)
  return {
    'name': name,
    'title': kind.title,
    'axis': kind.axis,
    'values': [degradations.told(value) for value in values],
    'cells': cells,
    'photometric': kind.photometric,
    'curves': {
      metric: {
        m: [table.mean(c, m, metric) for c in cells] for m in scoring.METHODS
      }
      for metric in metrics
    },
    'at': kind.phrase.format(degradations.told(values[middle])),
    'at_cell': keys[middle],
    'fall': {
      'ours': falls[middle],
      'bicubic': groups.summary(list(baseline.values())),
    },
  }


def by_group(name, division, metrics, table, kinds):
  """-> facts about one way to divide the images; the worst group first."""
  first = metrics[0]
  columns, better = {}, {}
  for metric in metrics:
    columns[metric] = table.values(scoring.CLEAN, 'ours', metric)
    better[metric] = 1 if METRICS[metric][2] else -1
  smooth = table.values(scoring.CLEAN, 'bicubic', first)
  columns['gain'] = {
    n: None
    if None in (value, smooth[n])
    else better[first] * (value - smooth[n])
    for n, value in columns[first].items()
  }
  better['gain'] = 1
  if kinds:
    falls = [table.fall(k['at_cell'], 'ours', first) for k in kinds]
    columns['fall'] = {n: mean_of([f[n] for f in falls]) for n in smooth}
    better['fall'] = -1
  found = groups.compare(division, columns, better=better)
  small = [row['group'] for row in found['rows'] if not row['enough']]
  return {'by': name, **found, 'too_small': small}


def mean_of(values):
  """-> mean of what is known, None if nothing is."""
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


def spread(spreads, records, k):
  """-> facts about calibration of k draws."""
  tallies = [scoring.tally_of(spreads[n]) for n in records]
  whole = calibration.add(tallies)
  ratio = calibration.spread_skill(whole)
  sums = np.array([(t.variance, t.error) for t in tallies])
  interval = None
  if len(records) > 1 and whole.error:
    interval = bootstrap.interval(
      sums,
      statistic=lambda x: calibration.ratio(k, *x.sum(axis=0)),
    )
  count = whole.count
  return {
    'k': k,
    'spread_skill': ratio if np.isfinite(ratio) else None,
    'interval': interval and list(interval),
    'coverage_error': calibration.coverage_error(whole),
    'coverage_bias': calibration.coverage_bias(whole),
    'coverage': calibration.coverage(whole),
    'ranks': (whole.ranks / count).tolist(),
    'reliability': calibration.reliability(whole),
    'rms_spread': float(np.sqrt(whole.variance / count)),
    'rmse_of_mean': float(np.sqrt(whole.error / count)),
    'psnr_of_one': groups.summary([spreads[n]['psnr_of_one'] for n in records]),
    'psnr_of_mean': groups.summary(
      [spreads[n]['psnr_of_mean'] for n in records]
    ),
  }
