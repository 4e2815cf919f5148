"""Ranks of the true class, image by image: what top-k accuracy is made of.

They are kept line by line as they come, so that a killed test continues.
"""

from concurrent import futures

import numpy as np

from cdm.distributed import collectives
from cdm.evaluation.metrics import bootstrap, top_k
from cdm.reporting import progress

# Above it the interval is narrower than what the conventions differ by.
MOST_FOR_INTERVALS = 5000
PREFIX = 'ranks-'  # of the folder of the rows, see `partial_results`


def rank_images(
  count, read, rank, *, kinds, rows, batch_size, label, together=False
):
  """Ranks every image of a set; continues what a killed test left.

  Args:
    count: images of the set.
    read: numbers -> what `rank` takes; runs one batch ahead, in a thread.
    rank: (numbers, what was read) -> (numbers, int [n, kinds]): ranks, in the
      end, of every image in one process.
    kinds: names of the columns.
    rows: `partial_results.image_rows` of the ranks: [number, rank, ...].
    batch_size: images at once, over all processes.
    label: of the progress.
    together: every process is given the whole batch, as a program that runs
      on all of them needs it; else its own part.

  Returns:
    {kind: int64 [count]}, the same in every process.
  """
  missing = rows.missing(range(count))
  batches = [
    missing[start : start + batch_size]
    for start in range(0, len(missing), batch_size)
  ]
  parts = batches
  if not together:
    parts = [[b[i] for i in collectives.local_indices(len(b))] for b in batches]
  with (
    progress.Progress(label, total=count, initial=count - len(missing)) as bar,
    futures.ThreadPoolExecutor(1) as pool,
  ):
    ahead = [pool.submit(read, part) if part else None for part in parts[:1]]
    for i, part in enumerate(parts):
      if i + 1 < len(parts):
        following = parts[i + 1]
        ahead.append(pool.submit(read, following) if following else None)
      given = ahead.pop(0)
      numbers, found = rank(part, given.result()) if part else ((), ())
      rows.append(
        [
          [int(n), *map(int, row)]
          for n, row in zip(numbers, found, strict=True)
        ]
      )
      bar.advance(len(batches[i]))
  table = np.array([rows.rows[n][1:] for n in range(count)], np.int64)
  return {kind: table[:, i] for i, kind in enumerate(kinds)}


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
