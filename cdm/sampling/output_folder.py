"""An output folder, its manifest, and the numbered PNGs in it.

The manifest is a JSON file with every setting that the folder's contents
depend on. A restart with the same settings continues the folder; a restart
with other settings is refused.
"""

import json
import pathlib

import numpy as np

from cdm.distributed import collectives
from cdm.reporting import atomic_files


def _other_pictures(folder, key, saved, wanted):
  return (
    f'{folder} holds pictures of another recipe: {key} is {saved.get(key)!r} '
    f'there, {wanted[key]!r} now. Give another --out, or delete that folder to '
    'draw anew.'
  )


def claim(folder, manifest, *, name, notes=None, refusal=_other_pictures):
  """Makes the folder and writes its manifest, or checks the one that is there.

  Args:
    folder: made if it is missing.
    manifest: JSON-able dict of all that the contents depend on.
    name: of the manifest's file, e.g. 'sampling.json'.
    notes: JSON-able dict that is written beside it and never compared.
    refusal: (folder, key, saved, wanted) -> the sentence that refuses a folder
      whose manifest, `saved`, has another value at `key`.

  Raises:
    ValueError: another manifest is there.
  """
  folder = pathlib.Path(folder)
  path = folder / name
  if path.exists():
    saved = json.loads(path.read_text())
    wanted = json.loads(json.dumps(manifest))
    for key in wanted:
      if saved.get(key) != wanted[key]:
        raise ValueError(refusal(folder, key, saved, wanted))
    return
  folder.mkdir(parents=True, exist_ok=True)
  # Of several processes all write the same.
  text = json.dumps({**manifest, **(notes or {})}, indent=2) + '\n'
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
  return np.flatnonzero(collectives.broadcast_from_first(absent)).tolist()
