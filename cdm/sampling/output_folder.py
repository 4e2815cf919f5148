"""A folder of made pictures belongs to one recipe, written beside them."""

import json
import pathlib

import numpy as np

from cdm.distributed import collectives
from cdm.reporting import atomic_files


def claim(folder, recipe, *, name):
  """Makes the folder and writes its recipe, or checks the one that is there.

  Args:
    folder: made if it is missing.
    recipe: JSON-able dict of all that the pictures depend on.
    name: of the file, e.g. 'sampling.json'.

  Raises:
    ValueError: another recipe is there, with the first value that differs.
  """
  folder = pathlib.Path(folder)
  path = folder / name
  if path.exists():
    saved = json.loads(path.read_text())
    wanted = json.loads(json.dumps(recipe))
    for key in wanted:
      if saved.get(key) != wanted[key]:
        raise ValueError(
          f'{folder} holds pictures of another recipe: {key} is '
          f'{saved.get(key)!r} there, {wanted[key]!r} now. Give another --out, '
          'or delete that folder to draw anew.'
        )
    return
  folder.mkdir(parents=True, exist_ok=True)
  # Of several processes all write the same.
  text = json.dumps(recipe, indent=2) + '\n'
  atomic_files.write_text_atomically(path, text, shared=True)


def file_name(n):
  """-> '000012.png'."""
  return f'{n:06d}.png'


def missing(folders, count):
  """-> the n below count of which some folder has no picture."""
  return [
    n
    for n in range(count)
    if not all((folder / file_name(n)).exists() for folder in folders)
  ]


def agreed_missing(folders, count):
  """`missing` as process 0 sees it: all must draw the same images."""
  absent = np.zeros(count, bool)
  absent[missing(folders, count)] = True
  return np.flatnonzero(collectives.agree(absent)).tolist()
