"""Aggregates the rows of a robustness study into the content of its report.

The functions are pure. They take the rows of scores and of draws, and return
means, intervals, worst groups and calibration as one JSON-able dict.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cdm.evaluation import groups, metrics_table
from cdm.evaluation.metrics import bootstrap, calibration
from cdm.evaluation.robustness import scoring
from cdm.evaluation.robustness.conditions import (
  CLEAN,
  Condition,
  list_conditions,
)
from cdm.evaluation.robustness.report_types import (
  CalibrationReport,
  DegradationReport,
  DivisionReport,
  DrawsRow,
  Method,
  Results,
  ScoreRow,
)
from cdm.ops import degradations

# {(index of the image, name of the condition): its scores}.
ScoreRows = Mapping[tuple[int, str], ScoreRow]
# {(name of the condition, method): {metric: value}}.
SetScores = Mapping[tuple[str, Method], Mapping[str, float | None]]


def collect(
  rows: ScoreRows,
  spreads: Mapping[int, DrawsRow],
  *,
  records: Sequence[int],
  chosen: Mapping[str, Sequence],
  metrics: Sequence[str],
  divisions: Mapping[str, Mapping[str, Sequence[int]]],
  draws: int,
  sets: SetScores,
) -> Results:
  """Aggregates all rows of a study.

  Args:
    rows: the scores of the images, from `scoring.Examination.run`.
    spreads: {index: row of the image's draws}, from the same function.
    records: indices of the images.
    chosen: {degradation: strengths}.
    metrics: names of metrics of pairs and of sets; the first one, of pairs,
      decides which group and which filter is the worst.
    divisions: {column of the label file: {group: [index, ...]}}.
    draws: number k of draws of each image, or 0.
    sets: the scores of the sets, by the metrics of sets.
  """
  conditions = [condition.name for condition in list_conditions(chosen)]
  per_image = [m for m in metrics if m in metrics_table.PAIRS]
  table = Table(rows, sets, records, conditions)
  kinds = [
    summarize_degradation(name, values, metrics, table)
    for name, values in chosen.items()
  ]
  return {
    'n': len(records),
    'metrics': list(metrics),
    'counts': {m: len(table.common(m)) for m in per_image},
    'clean': {
      metric: {m: table.mean(CLEAN, m, metric) for m in scoring.METHODS}
      for metric in metrics
    },
    'degradations': kinds,
    'groups': [
      compare_groups(name, division, per_image, table, kinds)
      for name, division in divisions.items()
    ],
    'calibration': summarize_draws(spreads, records, draws) if draws else None,
  }


class Table:
  """Looks up scores by condition, method, metric and index of the image.

  All numbers of a metric are over the same images, `common`: those whose score
  is finite for every method under every condition. Otherwise one image that a
  method reproduces exactly, whose PSNR is infinite, would be left out of that
  method's mean alone, and the means could not be compared.

  In the methods, `condition` is the name of a `conditions.Condition`, `method`
  one of `scoring.METHODS`, and `metric` a name of `metrics_table.PAIRS`.
  """

  def __init__(
    self,
    rows: ScoreRows,
    sets: SetScores,
    records: Sequence[int],
    conditions: Sequence[str],
  ) -> None:
    """Takes `rows`, `sets` and `records` as `collect` does.

    Args:
      conditions: names of all conditions that are compared.
    """
    self._rows, self._sets, self._records = rows, sets, records
    self._conditions = conditions
    self._common: dict[str, set[int]] = {}

  def common(self, metric: str) -> set[int]:
    """Returns the indices of the images that the metric is averaged over."""
    if metric not in self._common:
      self._common[metric] = {
        n
        for n in self._records
        if all(
          self._rows[n, condition][method].get(metric) is not None
          for condition in self._conditions
          for method in scoring.METHODS
        )
      }
    return self._common[metric]

  def values(
    self, condition: str, method: Method, metric: str
  ) -> dict[int, float | None]:
    """Returns {index: score}; None for images that are not `common`."""
    common = self.common(metric)
    return {
      n: self._rows[n, condition][method][metric] if n in common else None
      for n in self._records
    }

  def mean(self, condition: str, method: Method, metric: str) -> groups.Summary:
    """Returns the mean and its 95% interval.

    A metric of sets may be given too: its value is the 'mean', and it has no
    interval.
    """
    if metric in metrics_table.SETS:
      value = self._sets.get((condition, method), {}).get(metric)
      return {'mean': value, 'low': None, 'high': None}
    return groups.summary(list(self.values(condition, method, metric).values()))

  def fall(
    self, condition: str, method: Method, metric: str
  ) -> dict[int, float | None]:
    """Returns {index: how much worse the image scores than on clean input}.

    A positive number is worse, whether or not a higher score is better. The
    number is None where either score is missing.
    """
    sign = sign_of(metric)
    clean = self.values(CLEAN, method, metric)
    degraded = self.values(condition, method, metric)
    falls = {}
    for n in self._records:
      a, b = clean[n], degraded[n]
      falls[n] = None if a is None or b is None else sign * (a - b)
    return falls


def summarize_degradation(
  name: str, values: Sequence, metrics: Sequence[str], table: Table
) -> DegradationReport:
  """Aggregates the scores under one kind of degradation.

  Args:
    name: the kind, of `degradations.KINDS`.
    values: its strengths, rising; of 'kernel' the filters.
    metrics: see `collect`.
    table: the scores.
  """
  kind = degradations.KINDS[name]
  names = [Condition(name, value).name for value in values]
  conditions = [CLEAN, *names]
  first = next(m for m in metrics if m in metrics_table.PAIRS)
  falls = [
    groups.summary(list(table.fall(condition, 'ours', first).values()))
    for condition in names
  ]
  # Filters have no order and no middle, so the report states the worst of them.
  middle = len(values) // 2
  if name == degradations.KERNEL:
    means = [-np.inf if f['mean'] is None else f['mean'] for f in falls]
    middle = int(np.argmax(means))
  baseline = table.fall(names[middle], 'bicubic', first)
  return {
    'name': name,
    'title': kind.title,
    'axis': kind.axis,
    'values': [degradations.format_strength(value) for value in values],
    'cells': conditions,
    'photometric': kind.photometric,
    'curves': {
      metric: {
        m: [table.mean(c, m, metric) for c in conditions]
        for m in scoring.METHODS
      }
      for metric in metrics
    },
    'at': kind.phrase.format(degradations.format_strength(values[middle])),
    'at_cell': names[middle],
    'fall': {
      'ours': falls[middle],
      'bicubic': groups.summary(list(baseline.values())),
    },
  }


def compare_groups(
  name: str,
  division: Mapping[str, Sequence[int]],
  metrics: Sequence[str],
  table: Table,
  kinds: Sequence[DegradationReport],
) -> DivisionReport:
  """Compares the groups of one division of the images, the worst group first.

  Args:
    name: name of the division, such as the column of the label file.
    division: {group: [index, ...]}.
    metrics: names of metrics of pairs; the first one orders the groups.
    table: the scores.
    kinds: the report on each kind of degradation.

  Returns:
    the comparison of the stage's scores on clean inputs, with two more columns:
    'gain', what the stage gains over bicubic in the first metric, and 'fall',
    what it loses at the middle strengths on average.
  """
  first = metrics[0]
  columns, better = {}, {}
  for metric in metrics:
    columns[metric] = table.values(CLEAN, 'ours', metric)
    better[metric] = sign_of(metric)
  smooth = table.values(CLEAN, 'bicubic', first)
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


def sign_of(metric: str) -> int:
  """Returns 1 if a higher value of a metric is better, otherwise -1."""
  return 1 if metrics_table.PAIRS[metric].number.higher_is_better else -1


def mean_of(values: Sequence[float | None]) -> float | None:
  """Returns the mean of the values that are not None; None if all are."""
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


def summarize_draws(
  spreads: Mapping[int, DrawsRow], records: Sequence[int], k: int
) -> CalibrationReport:
  """Aggregates the calibration of k draws of each image.

  Args:
    spreads: {index: row of the image's draws}.
    records: indices of the images.
    k: number of draws.

  Returns:
    the measures of `calibration` over all values of all images. The interval
    of the spread-skill ratio is a bootstrap over images.
  """
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
  # One draw and the mean of all draws are compared on the same images.
  psnr = [
    (spreads[n]['psnr_of_one'], spreads[n]['psnr_of_mean']) for n in records
  ]
  psnr = [pair for pair in psnr if None not in pair]
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
    'psnr_of_one': groups.summary([one for one, _ in psnr]),
    'psnr_of_mean': groups.summary([mean for _, mean in psnr]),
  }
