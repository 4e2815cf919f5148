"""The files of rows of an examination, which process 0 writes for all."""

from cdm.distributed import collectives
from cdm.reporting import jsonl
from cdm.sampling import output_folder

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
  output_folder.claim(out, recipe, name=RECIPE)


def append(path, mine):
  """Adds the rows of all processes; process 0 writes."""
  rows = [row for part in collectives.gather_objects(mine) for row in part]
  if collectives.is_first() and rows:
    jsonl.append(path, rows)
