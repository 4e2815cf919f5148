"""Keeps what was gathered so far, so that a killed evaluation continues.

Every process writes parts of its own, named by the number of batches that they
hold; the last two stay, because a kill may come when some processes have
written the newest and others not.
"""

import os
import pathlib
import re
import shutil

import numpy as np

from cdm import processes
from cdm.evaluate import gathered as gather

KEPT = 2


class Partial:
  """Parts of one set's gathering, in a folder of their own."""

  def __init__(self, folder):
    """folder: of this set and these metrics alone; made when needed."""
    self._folder = pathlib.Path(folder)
    self._index = None

  def newest(self):
    """-> (batches done, what they gave) that all processes have."""
    mine = sorted(self._parts())
    common = set.intersection(*map(set, processes.gather_objects(mine)))
    if not common:
      return 0, gather.EMPTY
    done = max(common)
    with np.load(self._path(done)) as archive:
      return done, gather.from_arrays(archive)

  def write(self, done, gathered):
    """Keeps what the first `done` batches gave."""
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._path(done)
    part = path.with_name(f'.{path.name}.partial')
    with open(part, 'wb') as file:
      np.savez(file, **gather.to_arrays(gathered))
    os.replace(part, path)
    for old in sorted(self._parts())[:-KEPT]:
      self._path(old).unlink(missing_ok=True)

  def remove(self):
    """Forgets it all: the result is there."""
    processes.wait_for_all('the end of gathering')
    if processes.is_first():
      shutil.rmtree(self._folder, ignore_errors=True)

  def _path(self, done):
    return self._folder / f'process-{self._number()}-batches-{done}.npz'

  def _parts(self):
    """-> numbers of batches of the parts that can be read to their end."""
    pattern = rf'process-{self._number()}-batches-(\d+)\.npz'
    if not self._folder.is_dir():
      return []
    found = (re.fullmatch(pattern, p.name) for p in self._folder.iterdir())
    return [int(match[1]) for match in found if match]

  def _number(self):
    if self._index is None:
      import jax

      self._index = jax.process_index()
    return self._index
