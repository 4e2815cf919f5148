"""Ranks of the true class, image by image: what top-k accuracy is made of.

They are kept line by line as they come, so that a killed test continues.
"""

import hashlib
import json
import pathlib
import shutil
from concurrent import futures

import jax
import numpy as np

from cdm.distributed import collectives
from cdm.evaluation.metrics import bootstrap, top_k
from cdm.reporting import jsonl, progress

# Above it the interval is narrower than what the conventions differ by.
MOST_FOR_INTERVALS = 5000


def of_set(
  count, read, rank, *, kinds, keep, batch_size, label, together=False
):
  """Ranks every image of a set; continues what was kept.

  Args:
    count: images of the set.
    read: numbers -> what `rank` takes; runs one batch ahead, in a thread.
    rank: (numbers, what was read) -> (numbers, int [n, kinds]): ranks, in the
      end, of every image in one process.
    kinds: names of the columns.
    keep: `Kept`.
    batch_size: images at once, over all processes.
    label: of the progress.
    together: every process is given the whole batch, as a program that runs
      on all of them needs it; else its own part.

  Returns:
    {kind: int64 [count]}, the same in every process.
  """
  known = keep.known()
  missing = [n for n in range(count) if n not in known]
  batches = [
    missing[start : start + batch_size]
    for start in range(0, len(missing), batch_size)
  ]
  parts = batches
  if not together:
    parts = [[b[i] for i in collectives.share(len(b))] for b in batches]
  mine = {}
  with (
    progress.Progress(label, total=count, initial=len(known)) as bar,
    futures.ThreadPoolExecutor(1) as pool,
  ):
    ahead = [pool.submit(read, part) if part else None for part in parts[:1]]
    for i, part in enumerate(parts):
      if i + 1 < len(parts):
        following = parts[i + 1]
        ahead.append(pool.submit(read, following) if following else None)
      given = ahead.pop(0)
      if part:
        mine |= keep.add(*rank(part, given.result()))
      bar.advance(len(batches[i]))
  for found in collectives.gather_objects(list(mine.items())):
    known |= dict(found)
  table = np.array([known[n] for n in range(count)], np.int64)
  return {kind: table[:, i] for i, kind in enumerate(kinds)}


class Kept:
  """Ranks that were found so far, in a file of each process."""

  def __init__(self, folder, what):
    """Args:

    folder: of what is kept; made when needed.
    what: JSON-able; all that the ranks depend on.
    """
    text = json.dumps(what, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    self._folder = pathlib.Path(folder) / f'ranks-{name}'

  def known(self):
    """-> {number: [rank, ...]} that earlier runs kept, in every process."""
    found = []
    if collectives.is_first() and self._folder.is_dir():
      for path in sorted(self._folder.glob('process-*.jsonl')):
        found += jsonl.read(path)
    found = collectives.gather_objects(found)[0]
    return {number: row for number, *row in found}

  def add(self, numbers, rows):
    """Keeps the ranks int [n, kinds] of some images. -> {number: ranks}."""
    found = {
      int(n): [int(rank) for rank in row]
      for n, row in zip(numbers, rows, strict=True)
    }
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / f'process-{jax.process_index()}.jsonl'
    jsonl.append(path, [[n, *row] for n, row in found.items()])
    return found

  def remove(self):
    """Forgets it all: the result is there."""
    collectives.wait_for_all('the end of ranking')
    if collectives.is_first():
      shutil.rmtree(self._folder, ignore_errors=True)


def numbers_of(found):
  """Ranks int [N] -> {'top1', 'top5', 'intervals'}, shares in [0, 1].

  Intervals are 95%, over images, by bootstrap, for 2 to 5,000 of them.
  """
  row = {f'top{k}': top_k.top_k(found, k) for k in (1, 5)}
  row['intervals'] = {}
  if 2 <= len(found) <= MOST_FOR_INTERVALS:
    for k in (1, 5):
      right = np.asarray(found < k, np.float64)
      row['intervals'][f'top{k}'] = list(bootstrap.interval(right))
  return row
