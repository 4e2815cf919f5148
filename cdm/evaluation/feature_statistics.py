"""Reduces the features of images to the sums that each metric needs.

Parts of a set are reduced separately, batch by batch or process by process, and
then merged. The sums do not grow with the number of images; only KID and
precision and recall need the features themselves.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cdm.evaluation import metrics_table
from cdm.evaluation.metrics import fid, inception_score
from cdm.models.inception import Features

T = TypeVar('T')


class Gathered(NamedTuple):
  """The sums and features of a set, or of a part of it, for the metrics.

  A field is None if no metric asked for it.

  Attributes:
    count: number of images.
    pool: moments of the pooled features.
    spatial: moments of the spatial features.
    scores: sums for the Inception Score.
    features: pooled features, a tuple of float32 [n, 2048]. They are
      concatenated once, at the end, because concatenating after every batch
      would copy all earlier batches each time.
    numbers: tuple of int [n], the indices in the set of the images that
      `features` belong to.
  """

  count: int
  pool: fid.Moments | None = None
  spatial: fid.Moments | None = None
  scores: inception_score.Sums | None = None
  features: tuple[np.ndarray, ...] | None = None
  numbers: tuple[np.ndarray, ...] | None = None


EMPTY = Gathered(count=0)


def summarize(
  found: Features,
  numbers: np.ndarray,
  *,
  metrics: Sequence[str],
  count: int,
  splits: int = inception_score.SPLITS,
) -> Gathered:
  """Reduces the features of a batch to what the metrics need.

  Args:
    found: features of n images.
    numbers: int [n], indices of the images in the set.
    metrics: names, from `metrics_table.SETS`.
    count: number of images in the whole set.
    splits: number of splits of the Inception Score.

  Returns:
    Gathered of the n images.

  Raises:
    ValueError: features that are not finite.
  """
  needs = {metrics_table.SETS[metric].takes for metric in metrics}
  keeps_features = 'features' in needs
  for values in (found.pool, found.spatial, found.logits):
    if not np.isfinite(values).all():
      raise ValueError(
        f'The features of images {np.min(numbers)} to {np.max(numbers)} are '
        'not finite: the weights of the network are damaged.'
      )
  return Gathered(
    count=len(numbers),
    pool=fid.moments(_rows(found.pool)) if 'pool' in needs else None,
    spatial=fid.moments(found.spatial) if 'spatial' in needs else None,
    scores=inception_score.sums(
      found.logits,
      inception_score.ranks(count)[numbers],
      count=count,
      splits=splits,
    )
    if 'scores' in needs
    else None,
    features=(np.asarray(found.pool),) if keeps_features else None,
    numbers=(np.asarray(numbers),) if keeps_features else None,
  )


def _rows(pool: Any) -> np.ndarray:
  """Returns [N, D], of a network that judges several parts of an image too."""
  return np.asarray(pool).reshape(-1, pool.shape[-1])


def merge(a: Gathered, b: Gathered) -> Gathered:
  """Merges two disjoint parts of a set, either of which may be empty."""
  if not a.count or not b.count:
    return a if a.count else b
  return Gathered(
    count=a.count + b.count,
    pool=_joined(fid.merge, a.pool, b.pool),
    spatial=_joined(fid.merge, a.spatial, b.spatial),
    scores=_joined(inception_score.merge, a.scores, b.scores),
    features=_joined(operator.add, a.features, b.features),
    numbers=_joined(operator.add, a.numbers, b.numbers),
  )


def _joined(join: Callable[[T, T], T], a: T | None, b: T | None) -> T | None:
  """Joins a field of two parts, which were reduced for the same metrics."""
  if a is None:
    return None
  assert b is not None
  return join(a, b)


def in_order(gathered: Gathered) -> np.ndarray:
  """Returns float32 [count, 2048], the features in the order of the images."""
  assert gathered.numbers is not None and gathered.features is not None
  numbers = np.concatenate(gathered.numbers)
  return np.concatenate(gathered.features)[np.argsort(numbers, kind='stable')]


def to_arrays(gathered: Gathered) -> dict[str, np.ndarray]:
  """Returns {name: array}, from which `from_arrays` restores the value."""
  arrays: dict = {'count': np.int64(gathered.count)}
  for name in ('pool', 'spatial', 'scores'):
    part = getattr(gathered, name)
    if part is not None:
      for field, value in part._asdict().items():
        arrays[f'{name}.{field}'] = np.asarray(value)
  for name in ('features', 'numbers'):
    if getattr(gathered, name) is not None:
      arrays[name] = np.concatenate(getattr(gathered, name))
  return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Gathered:
  """Restores a `Gathered` from the result of `to_arrays`."""
  kinds = {
    'pool': fid.Moments,
    'spatial': fid.Moments,
    'scores': inception_score.Sums,
  }
  fields: dict = {'count': int(arrays['count'])}
  for name, kind in kinds.items():
    if f'{name}.{kind._fields[0]}' in arrays:
      values: dict = {f: arrays[f'{name}.{f}'] for f in kind._fields}
      if 'count' in values:
        values['count'] = int(values['count'])
      fields[name] = kind(**values)
  for name in ('features', 'numbers'):
    if name in arrays:
      fields[name] = (arrays[name],)
  return Gathered(**fields)
