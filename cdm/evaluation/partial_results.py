"""Keeps what was gathered so far, so that a killed evaluation continues.

Every process writes parts of its own, named by the number of batches that they
hold; the last two stay, because a kill may come when some processes have
written the newest and others not. One that is damaged (the power went) is as
none.
"""

import contextlib
import hashlib
import json
import pathlib
import re
import zipfile

import numpy as np

from cdm.data import npz_images
from cdm.distributed import collectives
from cdm.reporting import atomic_files, jsonl, output_files

KEPT = 2


def digest(settings):
  """Returns 32 hex digits that name a folder after JSON-able settings."""
  text = json.dumps(settings, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def image_rows(home, settings, *, prefix=''):
  """Opens rows `[number of an image, ...]`, as `jsonl.ResumableRows`.

  Args:
    home: folder in which these rows have a folder of their own.
    settings: JSON-able; all that the rows depend on.
    prefix: of the name of their own folder.
  """
  folder = pathlib.Path(home) / f'{prefix}{digest(settings)}'
  return jsonl.ResumableRows(
    folder / 'process-0.jsonl',
    lambda row: row[0],
    pattern='process-*.jsonl',  # Each process once wrote a file of its own.
  )


class Partial:
  """Parts of one set's gathering, in a folder of their own."""

  def __init__(self, folder):
    """folder: of this set and these metrics alone; made when needed."""
    self._folder = pathlib.Path(folder)
    self._index = None

  def newest(self):
    """-> (batches done, what was kept of them) that all processes have.

    Of nothing: (0, {}).
    """
    mine = sorted(self._parts())
    common = set.intersection(*map(set, collectives.gather_objects(mine)))
    if not common:
      return 0, {}
    done = max(common)
    with np.load(self._path(done)) as archive:
      return done, {name: archive[name] for name in archive.files}

  def write(self, done, arrays):
    """Keeps {name: array}, what the first `done` batches gave.

    Raises:
      OSError: it cannot be written; what was kept before stays.
    """
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._path(done)
    with output_files.whole(path) as part, open(part, 'wb') as file:
      np.savez(file, **arrays)
    for old in sorted(self._parts(whole=False))[:-KEPT]:
      self._path(old).unlink(missing_ok=True)

  def remove(self):
    """Forgets it all, on every machine: the result is there."""
    collectives.barrier('the end of gathering')
    for done in self._parts(whole=False):
      self._path(done).unlink(missing_ok=True)
    if self._folder.is_dir():
      torn = atomic_files.partial_name(f'process-{self._number()}-*')
      for path in self._folder.glob(torn):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others' are there still
      self._folder.rmdir()

  def _path(self, done):
    return self._folder / f'process-{self._number()}-batches-{done}.npz'

  def _parts(self, whole=True):
    """-> numbers of batches of the parts, of those that are whole."""
    pattern = rf'process-{self._number()}-batches-(\d+)\.npz'
    if not self._folder.is_dir():
      return []
    found = (re.fullmatch(pattern, p.name) for p in self._folder.iterdir())
    every = [int(match[1]) for match in found if match]
    return [n for n in every if not whole or _is_whole(self._path(n))]

  def _number(self):
    if self._index is None:
      import jax

      self._index = jax.process_index()
    return self._index


def _is_whole(path):
  """Whether every byte of an archive is what was written."""
  try:
    with zipfile.ZipFile(path) as archive:
      return archive.testzip() is None
  except npz_images.DAMAGE:
    return False
