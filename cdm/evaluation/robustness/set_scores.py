"""Metrics of sets, degradation by degradation: FID and the like.

Only in the folders of pictures that `scoring` keeps: a set of made pictures is
compared with the set of what they should be.
"""

from cdm.evaluation import compare_sets, image_source, set_metrics
from cdm.evaluation.robustness.scoring import METHODS
from cdm.reporting import image_files, jsonl
from cdm.sampling import output_folder

FILE = 'sets.jsonl'
KID_SIZE = 1000  # of a subset, or all images where they are fewer


def check(metrics, count, few):
  """Raises ValueError where so few images give no number."""
  size = min(KID_SIZE, count)
  set_metrics.check(
    metrics, samples=count, reference=count, allow_few_images=few, kid_size=size
  )


def score(examination, every, *, metrics, network):
  """Judges every cell, ours and bicubic, continuing what is there.

  Args:
    examination: `scoring.Examination` that kept all pictures.
    every: list of `scoring.Cell`, clean first.
    metrics: of `aggregate.OF_SETS`.
    network: keyword arguments of `extract_features.Gatherer`.

  Returns:
    {(cell key, method): {metric: value}}.

  Raises:
    ValueError: weights that are not there.
  """
  path, records = examination.out / FILE, examination.records
  what = {'metrics': sorted(metrics), 'records': records}
  rows = jsonl.ResumableRows(
    path,
    lambda row: (row['cell'], row['method']) if row['what'] == what else None,
  )
  cells = {(cell.key, method): cell for cell in every for method in METHODS}
  todo = rows.missing(cells)
  if todo:
    gatherer = compare_sets.Gatherer(**network)
    reference = gatherer(
      source(examination.folder(every[0], 'original'), records),
      metrics,
      'reference',
    )
  for key, method in todo:
    mine = gatherer(
      source(examination.folder(cells[key, method], method), records),
      metrics,
      f'{key}, {method}',
    )
    row = set_metrics.compare(
      mine,
      reference,
      metrics=metrics,
      kid_size=min(KID_SIZE, len(records)),
    )
    scores = {name: row[name] for name in metrics}
    row = {'cell': key, 'method': method, 'scores': scores, 'what': what}
    rows.append([row])
    gatherer.forget()
  return {key: row['scores'] for key, row in rows.rows.items()}


def source(folder, records):
  """-> image_source.Source of the pictures of these records."""

  def read(i):
    return image_files.read_png(folder / output_folder.file_name(records[i]))

  count = len(records)
  recipe = {'data': str(folder.resolve()), 'records': records}
  return image_source.Source(
    count, image_source.read_in_parallel(read, count), recipe, {}
  )
