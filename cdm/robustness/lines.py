"""Files of lines, one JSON object each, that grow while work goes on."""

import json

from cdm import processes
from cdm import recipe as recipes

RECIPE, ROWS, DRAWS = 'robustness.json', 'rows.jsonl', 'draws.jsonl'


def claim(out, recipe):
  """Makes the folder and writes the recipe of its rows.

  Raises:
    ValueError: the folder belongs to something else, or another recipe.
  """
  if (out / ROWS).exists() and not (out / RECIPE).exists():
    raise ValueError(
      f'{out} holds the {ROWS} of another command; give another --out.'
    )
  recipes.claim(out, recipe, name=RECIPE)


def read(path):
  """-> its objects; what a kill tore off is left out."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def mend(path):
  """Cuts off what a kill left behind the last whole line."""
  if path.exists():
    with open(path, 'rb+') as file:
      file.truncate(file.read().rfind(b'\n') + 1)


def append(path, mine):
  """Adds the rows of all processes; process 0 writes."""
  rows = [row for part in processes.gather_objects(mine) for row in part]
  if processes.is_first() and rows:
    with open(path, 'a') as file:
      file.write(''.join(json.dumps(row) + '\n' for row in rows))
