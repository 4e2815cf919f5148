"""Merges the reduced features of all processes, see `feature_statistics`.

The result is that of `feature_statistics.merge`, process by process, to the
last bit. Moments are merged by `moment_exchange`; the features themselves,
which metrics of single images need, are gathered a bounded part at a time.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cdm.distributed import collectives, moment_exchange
from cdm.evaluation import feature_statistics
from cdm.evaluation.feature_statistics import Gathered
from cdm.evaluation.metrics import fid

MOST_BYTES = 1 << 28  # of all processes, that are gathered at once


def of_all_processes(own: Gathered) -> Gathered:
  """Returns the merged statistics of all processes, the same in all.

  A collective: every process must call it, in the same order.

  Args:
    own: what this process has; it may be empty.
  """
  if collectives.process_count() == 1:
    return own
  arrays = feature_statistics.to_arrays(own)
  every = collectives.gather_objects(
    {name: [x.shape, str(x.dtype)] for name, x in arrays.items()}
    | {'images': own.count}
  )
  counts = [int(shapes['images']) for shapes in every]
  if not any(counts):
    return own
  whole: dict[str, Any] = {'count': np.int64(sum(counts))}
  model = next(s for s, n in zip(every, counts, strict=True) if n)
  for part in ('pool', 'spatial'):
    if f'{part}.mean' in model:
      moments = _moments(getattr(own, part), counts, model[f'{part}.mean'][0])
      for name, value in moments._asdict().items():
        whole[f'{part}.{name}'] = np.asarray(value)
  for name, (shape, dtype) in ((n, s) for n, s in model.items() if '.' in n):
    if name not in whole:  # The sums of the Inception Score are small.
      mine = arrays.get(name, np.zeros(shape, dtype))
      whole[name] = _added(
        _gathered_rows(mine[None], [1] * len(counts)), counts
      )
  for name in ('features', 'numbers'):
    if name in model:
      shape, dtype = model[name]
      mine = arrays.get(name, np.zeros((0, *shape[1:]), dtype))
      whole[name] = np.concatenate(_gathered_rows(mine, counts))
  return feature_statistics.from_arrays(whole)


def _moments(
  own: fid.Moments | None, counts: Sequence[int], shape: Sequence[int]
) -> fid.Moments:
  """Merges the moments of all processes as `fid.merge` does, in their order.

  Args:
    own: what this process has; None if it has no image.
    counts: number of images of every process.
    shape: [D], the shape of a mean.
  """
  (size,) = shape
  if own is None:
    own = fid.Moments(0, np.zeros(size), np.zeros((size, size)))
  means = _gathered_rows(own.mean[None], [1] * len(counts))
  steps = merge_steps(counts, [mean[0] for mean in means])

  def merge(parts, rows):
    return merge_scatters(parts, steps, rows)

  return fid.Moments(
    sum(counts), steps[-1][1], moment_exchange.merge_rows(own.scatter, merge)
  )


def merge_steps(
  counts: Sequence[int], means: Sequence[np.ndarray]
) -> list[tuple[int, np.ndarray, np.ndarray | None, float]]:
  """Returns how the moments of parts are merged, one part after the other.

  Args:
    counts: number of images of every part; not all are 0.
    means: float64 [D] of every part.

  Returns:
    [(part, mean so far, gap, factor), ...] of the parts that have images. The
    scatter so far grows by that of the part and by factor times the outer
    product of the gap, which is None for the first part.
  """
  steps: list[tuple[int, np.ndarray, np.ndarray | None, float]] = []
  count = 0
  for part, (n, mean) in enumerate(zip(counts, means, strict=True)):
    if not n:
      continue
    if not steps:
      steps.append((part, mean, None, 0.0))
    else:
      before = steps[-1][1]
      gap = mean - before
      total = count + n
      after = before + gap * (n / total)
      steps.append((part, after, gap, count * n / total))
    count += n
  return steps


def merge_scatters(
  scatters: np.ndarray,
  steps: Sequence[tuple[int, np.ndarray, np.ndarray | None, float]],
  rows: range,
) -> np.ndarray:
  """Merges some rows of the scatters of all parts, float64 [d, D].

  Args:
    scatters: float64 [P, d, D], these rows of the scatter of every part.
    steps: see `merge_steps`.
    rows: which rows of the scatters they are.
  """
  merged = np.zeros(scatters.shape[1:])
  for part, _, gap, factor in steps:
    if gap is None:
      merged = scatters[part]
    else:
      merged = merged + scatters[part]
      own = gap[rows.start : rows.stop]
      merged = merged + np.outer(own, gap) * factor
  return merged


def _added(parts: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
  """Returns the sum of [1, ...] arrays of the parts that have images."""
  held = [x[0] for x, n in zip(parts, counts, strict=True) if n]
  total = held[0]
  for value in held[1:]:
    total = total + value
  return total


def _gathered_rows(own: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
  """Returns every process's array [n, ...], for which its n is known.

  Args:
    own: what this process has.
    counts: number of rows of every process.
  """
  width = own.itemsize * math.prod(own.shape[1:])
  each = max(1, MOST_BYTES // (width * len(counts)))
  found: list[list[np.ndarray]] = [[] for _ in counts]
  for start in range(0, max(counts), each):
    rows = _bits(own[start : start + each], min(each, max(counts) - start))
    for process, part in enumerate(_all(rows)):
      size = min(max(counts[process] - start, 0), each)
      found[process].append(part[:size])
  return [
    np.concatenate(parts).view(own.dtype).reshape(n, *own.shape[1:])
    for parts, n in zip(found, counts, strict=True)
  ]


def _bits(rows: np.ndarray, count: int) -> np.ndarray:
  """Returns rows as bytes, uint8 [count, bytes of a row], padded with zeros."""
  width = rows.itemsize * math.prod(rows.shape[1:])
  padded = np.zeros((count, width), np.uint8)
  flat = np.frombuffer(np.ascontiguousarray(rows).tobytes(), np.uint8)
  padded[: len(rows)] = flat.reshape(len(rows), width)
  return padded


def _all(rows: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the rows of every process, of equal shapes."""
  from jax.experimental import multihost_utils

  yield from multihost_utils.process_allgather(rows)
