"""Computes FID and KID of the images made under each degradation.

The images are those that `scoring` keeps on disk: all images made from one kind
of input are one set, and the reference is the set of their originals.
"""

from collections.abc import Sequence

from cdm.evaluation import compare_sets, image_source, set_metrics
from cdm.evaluation.extract_features import GathererOptions
from cdm.evaluation.robustness.conditions import Condition
from cdm.evaluation.robustness.report_types import (
  Method,
  SetScoresRow,
  SetSettings,
)
from cdm.evaluation.robustness.scoring import METHODS, Examination
from cdm.evaluation.row_types import ImageManifest
from cdm.reporting import jsonl

FILE = 'sets.jsonl'


def kid_size(count: int) -> int:
  """Returns the images per subset of KID: all, if there are few."""
  return min(set_metrics.KID_SIZE, count)


def check(metrics: Sequence[str], count: int, allow_few_images: bool) -> None:
  """Raises ValueError if there are too few images for one of the metrics.

  Args:
    metrics: names, from `metrics_table.of_single_number`.
    count: number of images.
    allow_few_images: allow FID of fewer than `set_metrics.FEWEST` images.
  """
  set_metrics.check(
    metrics,
    samples=count,
    reference=count,
    allow_few_images=allow_few_images,
    kid_size=kid_size(count),
  )


def score(
  examination: Examination,
  conditions: Sequence[Condition],
  *,
  metrics: Sequence[str],
  network: GathererOptions,
) -> dict[tuple[str, Method], dict[str, float]]:
  """Scores the images of the stage and of bicubic under every condition.

  sets.jsonl gets a row for each of them, and a restarted run computes only the
  missing rows.

  Args:
    examination: `scoring.Examination` that kept the images of all conditions.
    conditions: all conditions, the clean one first.
    metrics: names, from `metrics_table.of_single_number`.
    network: keyword arguments of `extract_features.Gatherer`.

  Returns:
    {(name of the condition, method): {metric: value}}.

  Raises:
    ValueError: the weights of the network are missing or damaged.
    OSError: the weights cannot be downloaded.
  """
  path, records = examination.out / FILE, examination.records
  settings: SetSettings = {
    'metrics': sorted(metrics),
    'records': list(records),
  }
  rows = jsonl.ResumableRows(
    path,
    lambda row: (
      (row['cell'], row['method']) if row['what'] == settings else None
    ),
    declared=SetScoresRow,
  )
  jobs = {
    (condition.name, method): condition
    for condition in conditions
    for method in METHODS
  }
  todo = rows.missing(jobs)
  if todo:
    gatherer = compare_sets.Gatherer(**network)
    reference = gatherer(
      source(examination, conditions[0], 'original'),
      metrics,
      'reference',
    )
  for name, method in todo:
    made = gatherer(
      source(examination, jobs[name, method], method),
      metrics,
      f'{name}, {method}',
    )
    compared = set_metrics.compare(
      made,
      reference,
      metrics=metrics,
      kid_size=kid_size(len(records)),
    )
    scores = {metric: compared.scores[metric] for metric in metrics}
    row: SetScoresRow = {
      'cell': name,
      'method': method,
      'scores': scores,
      'what': settings,
    }
    rows.append([row])
    gatherer.forget()
  return {key: row['scores'] for key, row in rows.rows.items()}


def source(
  examination: Examination, condition: Condition, version: str
) -> image_source.Source:
  """Returns the kept images of a condition as a set of images.

  Args:
    examination: `scoring.Examination` that kept them.
    condition, version: see `scoring.Examination.path`.
  """
  records = examination.records

  def read(i):
    return examination.read_image(records[i], condition, version)

  count, folder = len(records), examination.folder(condition, version)
  recipe: ImageManifest = {'data': str(folder.resolve()), 'records': records}
  return image_source.Source(
    count, image_source.read_in_parallel(read, count), recipe, {}
  )
