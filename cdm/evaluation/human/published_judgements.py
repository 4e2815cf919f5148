"""Puts what papers print of people's judgements beside a study's results."""

from collections.abc import Sequence

from cdm.evaluation import published_results

CAVEAT = (
  'Numbers of papers are of other pictures and other persons. Where this page '
  'says unverified, the number is commonly quoted and was not checked against '
  "the paper's own text; inferred means that it was read, but what it belongs "
  'to is deduced.'
)
_TABLES = {
  '2afc': ('sr3_fool_rates', 'prsr_celeba', 'prsr_bedrooms'),
  'rating': ('pulse_opinions',),
}
# Of a table with several metrics, the one that people gave.
_JUDGED = {'prsr_celeba': 'fool_rate', 'prsr_bedrooms': 'fool_rate'}
_WORDS = {
  published_results.READ: '',
  published_results.SECOND_HAND: ' (read in another text)',
  published_results.INFERRED: ' (inferred)',
  published_results.UNVERIFIED: ' (unverified)',
}


def beside(task: str) -> list[tuple[str, list[str], list[list[str | None]]]]:
  """Returns the tables that belong to a task.

  Returns:
    [(caption, heads of the columns, rows)]. The first column is the method.
  """
  return [_shown(name) for name in _TABLES.get(task, ())]


def text(number: published_results.Number | None) -> str | None:
  """Returns a number as it is printed, with how it is known."""
  return None if number is None else f'{number.text}{_WORDS[number.known]}'


def _shown(name):
  table = published_results.tables()[name]
  columns = {
    heading: metric
    for heading, metric in table.columns.items()
    if metric == _JUDGED.get(name, metric)
  }
  rows: Sequence[list[str | None]] = [
    [method, *(text(numbers.get(metric)) for metric in columns.values())]
    for method, numbers in table.rows.items()
    if any(metric in numbers for metric in columns.values())
  ]
  # A page has no list of sources, so the key is a name here.
  source = table.source.replace('[', '').replace(']', '')
  return f'{source}: {table.what}', ['method', *columns], list(rows)
