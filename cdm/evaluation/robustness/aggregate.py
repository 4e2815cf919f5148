"""Aggregates the rows of a robustness study into the content of its report.

The functions are pure. They take the rows of scores and of draws, and return
means, intervals, worst groups and calibration as one JSON-able dict.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cdm.evaluation import groups
from cdm.evaluation.metrics import bootstrap, calibration
from cdm.evaluation.robustness import score_rows, scoring
from cdm.ops import degradations

# Metrics of one image: name -> (title, unit, whether more is better).
METRICS = {
  'psnr': ('PSNR', 'dB', True),
  'psnr_y': ('PSNR of luma', 'dB', True),
  'ssim': ('SSIM', '', True),
  'ssim_gaussian': ('SSIM, Gaussian window', '', True),
  'ms_ssim': ('MS-SSIM', '', True),
  'consistency': ('Consistency', '1e-5', False),
  'lpips': ('LPIPS', '', False),
}
# Metrics of a set of images, likewise.
OF_SETS = {
  'fid': ('FID', '', False),
  'kid': ('KID', '', False),
}


def collect(
  rows: Mapping[tuple, Mapping[str, Any]],
  spreads: Mapping[int, Mapping[str, Any]],
  *,
  records: Sequence[int],
  chosen: Mapping[str, Sequence],
  metrics: Sequence[str],
  divisions: Mapping[str, Mapping[str, Sequence[int]]],
  draws: int,
  sets: Mapping[tuple[str, str], Mapping[str, float | None]],
) -> dict[str, Any]:
  """Aggregates all rows of a study.

  Args:
    rows: {(index, cell key): row}, see `scoring.Examination.run`.
    spreads: {index: row of the image's draws}, likewise.
    records: indices of the images.
    chosen: {degradation: strengths}.
    metrics: names of `METRICS` and `OF_SETS`; the first one, of `METRICS`,
      decides which group and which filter is the worst.
    divisions: {column of the label file: {group: [index, ...]}}.
    draws: number k of draws of each image, or 0.
    sets: {(cell key, method): {metric of `OF_SETS`: value}}.

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
  """Looks up scores by cell key, method, metric and index of the image.

  In the methods, `cell` is a key of `scoring.Cell`, `method` one of
  `scoring.METHODS`, and `metric` a name of `METRICS`.
  """

  def __init__(
    self,
    rows: Mapping[tuple, Mapping[str, Any]],
    sets: Mapping[tuple[str, str], Mapping[str, float | None]],
    records: Sequence[int],
  ) -> None:
    """Takes `rows`, `sets` and `records` as `collect` does."""
    self._rows, self._sets, self._records = rows, sets, records

  def values(
    self, cell: str, method: str, metric: str
  ) -> dict[int, float | None]:
    """Returns {index: score}; the score is None where it is not finite."""
    return {n: self._rows[n, cell][method].get(metric) for n in self._records}

  def mean(
    self, cell: str, method: str, metric: str
  ) -> dict[str, float | None]:
    """Returns {'mean', 'low', 'high'}, the mean and its 95% interval.

    A metric of `OF_SETS` may be given too: its value is the 'mean', and it has
    no interval.
    """
    if metric in OF_SETS:
      value = self._sets.get((cell, method), {}).get(metric)
      return {'mean': value, 'low': None, 'high': None}
    return groups.summary(list(self.values(cell, method, metric).values()))

  def fall(
    self, cell: str, method: str, metric: str
  ) -> dict[int, float | None]:
    """Returns {index: how much worse the image scores than on clean input}.

    Positive is worse, whichever way the metric points; None where either score
    is missing.
    """
    sign = 1 if METRICS[metric][2] else -1
    clean = self.values(scoring.CLEAN, method, metric)
    degraded = self.values(cell, method, metric)
    falls = {}
    for n in self._records:
      a, b = clean[n], degraded[n]
      falls[n] = None if a is None or b is None else sign * (a - b)
    return falls


def degradation(
  name: str, values: Sequence, metrics: Sequence[str], table: Table
) -> dict[str, Any]:
  """Aggregates the scores under one kind of degradation.

  Args:
    name: of `degradations.KINDS`.
    values: its strengths, rising; of 'kernel' the filters.
    metrics: see `collect`.
    table: the scores.

  Returns:
    a dict with 'curves', {metric: {method: [mean at each cell]}}, and 'fall',
    {method: loss of the first metric at the middle strength}; 'at' names that
    strength.
  """
  kind = degradations.KINDS[name]
  keys = [scoring.Cell(name, value).key for value in values]
  cells = [scoring.CLEAN, *keys]
  first = next(m for m in metrics if m in METRICS)
  falls = [
    groups.summary(list(table.fall(key, 'ours', first).values()))
    for key in keys
  ]
  # Filters have no order and no middle, so the report states the worst of them.
  middle = len(values) // 2
  if name == degradations.KERNEL:
    means = [-np.inf if f['mean'] is None else f['mean'] for f in falls]
    middle = int(np.argmax(means))
  baseline = table.fall(keys[middle], 'bicubic', first)
  return {
    'name': name,
    'title': kind.title,
    'axis': kind.axis,
    'values': [degradations.format_strength(value) for value in values],
    'cells': cells,
    'photometric': kind.photometric,
    'curves': {
      metric: {
        m: [table.mean(c, m, metric) for c in cells] for m in scoring.METHODS
      }
      for metric in metrics
    },
    'at': kind.phrase.format(degradations.format_strength(values[middle])),
    'at_cell': keys[middle],
    'fall': {
      'ours': falls[middle],
      'bicubic': groups.summary(list(baseline.values())),
    },
  }


def by_group(
  name: str,
  division: Mapping[str, Sequence[int]],
  metrics: Sequence[str],
  table: Table,
  kinds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Compares the groups of one division of the images, the worst group first.

  Args:
    name: of the division, e.g. the column of the label file.
    division: {group: [index, ...]}.
    metrics: names of `METRICS`; the first one orders the groups.
    table: the scores.
    kinds: what `degradation` returned of each kind.

  Returns:
    what `groups.compare` returns, of the clean scores of the stage, its 'gain'
    over bicubic and its mean 'fall' at the middle strengths; with 'by', the
    name, and 'too_small', the groups that are too small to be compared.
  """
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
  compared = groups.compare(division, columns, better=better)
  small = [row['group'] for row in compared['rows'] if not row['enough']]
  return {'by': name, **compared, 'too_small': small}


def mean_of(values: Sequence[float | None]) -> float | None:
  """Returns the mean of the values that are not None; None if all are."""
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


def spread(
  spreads: Mapping[int, Mapping[str, Any]], records: Sequence[int], k: int
) -> dict[str, Any]:
  """Aggregates the calibration of k draws of each image.

  Args:
    spreads: {index: row of the image's draws}.
    records: indices of the images.
    k: number of draws.

  Returns:
    the measures of `calibration` over all values of all images, with a
    bootstrap 'interval' over images of the spread-skill ratio, and the PSNR of
    one draw and of the mean of the draws. Spread and error are in grey levels.
  """
  tallies = [score_rows.tally_of(spreads[n]) for n in records]
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
