"""Ranks the true class of every image, and computes top-k accuracy from it.

The ranks are appended to a file as they are computed, so a killed test can be
continued.
"""

import os
import types
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from cdm.distributed import collectives
from cdm.evaluation import partial_results
from cdm.evaluation.metrics import bootstrap, top_k
from cdm.evaluation.row_types import Accuracy
from cdm.reporting import jsonl, progress

# With more images the confidence interval is narrower than the differences
# between conventions of a metric, so none is computed.
MOST_FOR_INTERVALS = 5000
# Prefix of the name of the folder of the rows, see `partial_results`.
PREFIX = 'ranks-'


def open_rows(
  home: str | os.PathLike, settings: object, kinds: Sequence[str]
) -> jsonl.ResumableRows:
  """Opens the rows [index, rank, ...], with a rank of each kind.

  Args:
    home: folder in which these rows get a folder of their own.
    settings: JSON-able; everything that the rows depend on.
    kinds: names of the columns of the ranks.
  """
  return partial_results.image_rows(
    home,
    settings,
    prefix=PREFIX,
    # Made while the program runs, which a type checker does not follow.
    declared=types.GenericAlias(tuple, (int,) * (1 + len(kinds))),
  )


def rank_images(
  count: int,
  read: Callable[[Sequence[int]], Any],
  rank: Callable[[Sequence[int], Any], tuple[Sequence[int], np.ndarray]],
  *,
  kinds: Sequence[str],
  rows: jsonl.ResumableRows,
  batch_size: int,
  label: str,
  together: bool = False,
) -> dict[str, np.ndarray]:
  """Ranks the true class of every image that has no row yet.

  Args:
    count: number of images of the set.
    read: `read(indices)` loads the images for `rank`; it runs one batch ahead,
      in a thread.
    rank: `rank(indices, what read returned)` returns indices and their ranks,
      int [n, kinds]. It may return a part of the batch, but every image must be
      returned by one of the processes.
    kinds: names of the columns of the ranks.
    rows: the rows [index, rank, ...], see `open_rows`.
    batch_size: images per batch, over all processes.
    label: label of the progress bar.
    together: True names the whole batch to every process, because a program
      runs on all of them; False gives each process its own part.

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
      loaded = ahead.pop(0)
      indices, ranks = rank(part, loaded.result()) if loaded else ((), ())
      rows.add(
        [
          [int(n), *map(int, row)]
          for n, row in zip(indices, ranks, strict=True)
        ]
      )
      bar.advance(len(batches[i]))
    rows.flush()
  table = np.array([rows.rows[n][1:] for n in range(count)], np.int64)
  return {kind: table[:, i] for i, kind in enumerate(kinds)}


def accuracy(found: np.ndarray) -> Accuracy:
  """Computes top-1 and top-5 accuracy with their intervals.

  Args:
    found: int [N], the ranks of the true classes.

  Returns:
    The accuracies. Their intervals are by bootstrap over images, and are given
    for 2 to 5,000 images.
  """
  intervals: dict[str, list[float]] = {}
  if 2 <= len(found) <= MOST_FOR_INTERVALS:
    for k in (1, 5):
      right = np.asarray(found < k, np.float64)
      intervals[f'top{k}'] = list(bootstrap.interval(right))
  return {
    'top1': top_k.top_k(found, 1),
    'top5': top_k.top_k(found, 5),
    'intervals': intervals,
  }
