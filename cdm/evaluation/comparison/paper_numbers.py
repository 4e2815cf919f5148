"""Finds the numbers of a paper that stand beside ours in a comparison."""

from collections.abc import Mapping
from typing import NamedTuple

from cdm.evaluation import metrics_table, published_results
from cdm.evaluation.comparison.opened_methods import Task

# The table of each task, by (low-res size, size).
TABLES = {
  (16, 128): 'sr3_faces',
  (64, 256): 'sr3_imagenet',
  (8, 32): 'prsr_celeba',
}
NONE = 'none'
# Metrics that a paper prints in another unit than rows have.
_OURS = {'consistency_1e-5': 'consistency'}


class Published(NamedTuple):
  """The numbers of a paper, as it prints them.

  Attributes:
    task: what they are of, and where they are printed.
    metrics: our names of its metrics, in its order.
    rows: {method: {metric: text}}; an unverified number says so.
  """

  task: str
  metrics: tuple[str, ...]
  rows: Mapping[str, Mapping[str, str]]

  def of(self, method: str, metric: str) -> str | None:
    """Returns the number of a method, by its name in any spelling."""
    for name, numbers in self.rows.items():
      if plain(name) == plain(method):
        return numbers.get(metric)
    return None


def known() -> list[str]:
  """Returns the tables that have a metric of pairs."""
  return [
    name
    for name, table in published_results.tables().items()
    if set(map(_ours, table.columns.values())) & set(metrics_table.PAIRS)
  ]


def find(task: Task, name: str | None) -> Published | None:
  """Returns the numbers beside ours; None if there are none.

  Args:
    task: the task of the comparison.
    name: a key of `published_results.tables`, or 'none'; None takes the table
      of the task, if the papers have it.

  Raises:
    ValueError: there is no such table.
  """
  if name is None:
    name = TABLES.get((task.lowres_size, task.image_size), NONE)
  if name == NONE:
    return None
  if name not in known():
    raise ValueError(
      f'--paper={name}: known are {", ".join(known())}, and {NONE}.'
    )
  table = published_results.tables()[name]
  metrics = [_ours(metric) for metric in table.columns.values()]
  kept = [m for m in metrics if m in metrics_table.PAIRS]
  rows = {
    method: {_ours(metric): _text(number) for metric, number in numbers.items()}
    for method, numbers in table.rows.items()
  }
  return Published(f'{table.what}; {table.source}', tuple(kept), rows)


def _ours(metric):
  return _OURS.get(metric, metric)


def _text(number):
  if number.known == published_results.UNVERIFIED:
    return f'{number.text} (unverified)'
  return number.text


def plain(name: str) -> str:
  """Returns a name without what its spellings differ in."""
  return ''.join(c for c in name.lower() if c.isalnum())
