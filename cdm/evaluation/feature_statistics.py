"""What metrics need of a set of images, gathered image by image.

Sums do not grow with the number of images; only KID and precision and recall
need the features themselves.
"""

from typing import NamedTuple

import numpy as np

from cdm.evaluation.metrics import fid, inception_score

# Metric -> what it needs.
NEEDS = {
  'fid': 'pool',
  'sfid': 'spatial',
  'is': 'scores',
  'kid': 'features',
  'pr': 'features',
}


class Gathered(NamedTuple):
  """Of a part of a set, or of all of it.

  Attributes:
    count: images so far.
    pool: fid.Moments of the pooled features, or None.
    spatial: fid.Moments of the spatial ones, or None.
    scores: inception_score.Sums, or None.
    features: tuple of float32 [n, 2048], or None; joined when all are there,
      or every batch would copy those before it.
    numbers: tuple of int [n], of the images in the set, beside `features`.
  """

  count: int
  pool: fid.Moments | None = None
  spatial: fid.Moments | None = None
  scores: inception_score.Sums | None = None
  features: tuple | None = None
  numbers: tuple | None = None


EMPTY = Gathered(count=0)


def summarize(found, numbers, *, metrics, count, splits=10):
  """Gathers a batch.

  Args:
    found: inception.Features of n images.
    numbers: int [n], of the images in the set.
    metrics: names, see `NEEDS`.
    count: images of the whole set.
    splits: of the Inception Score.

  Returns:
    Gathered.

  Raises:
    ValueError: features that are not finite.
  """
  needs = {NEEDS[metric] for metric in metrics}
  whole = 'features' in needs
  for values in (found.pool, found.spatial, found.logits):
    if not np.isfinite(values).all():
      raise ValueError(
        f'The features of images {np.min(numbers)} to {np.max(numbers)} are '
        'not finite: the weights of the network are damaged.'
      )
  return Gathered(
    count=len(numbers),
    pool=fid.moments(found.pool) if 'pool' in needs else None,
    spatial=fid.moments(found.spatial) if 'spatial' in needs else None,
    scores=inception_score.sums(
      found.logits,
      inception_score.ranks(count)[numbers],
      count=count,
      splits=splits,
    )
    if 'scores' in needs
    else None,
    features=(found.pool,) if whole else None,
    numbers=(np.asarray(numbers),) if whole else None,
  )


def merge(a, b):
  """-> Gathered of two disjoint parts; either may be empty."""
  if not a.count or not b.count:
    return a if a.count else b
  scores = None
  if a.scores is not None:
    pairs = zip(a.scores, b.scores, strict=True)
    scores = inception_score.Sums(*(x + y for x, y in pairs))
  return Gathered(
    count=a.count + b.count,
    pool=fid.merge(a.pool, b.pool) if a.pool else None,
    spatial=fid.merge(a.spatial, b.spatial) if a.spatial else None,
    scores=scores,
    features=None if a.features is None else a.features + b.features,
    numbers=None if a.numbers is None else a.numbers + b.numbers,
  )


def in_order(gathered):
  """-> float32 [count, 2048], the features in the order of the images."""
  numbers = np.concatenate(gathered.numbers)
  return np.concatenate(gathered.features)[np.argsort(numbers, kind='stable')]


def to_arrays(gathered):
  """-> {name: array}, what `from_arrays` takes."""
  made = {'count': np.int64(gathered.count)}
  for name in ('pool', 'spatial', 'scores'):
    part = getattr(gathered, name)
    if part is not None:
      for field, value in part._asdict().items():
        made[f'{name}.{field}'] = np.asarray(value)
  for name in ('features', 'numbers'):
    if getattr(gathered, name) is not None:
      made[name] = np.concatenate(getattr(gathered, name))
  return made


def from_arrays(arrays):
  """{name: array} -> Gathered."""
  kinds = {
    'pool': fid.Moments,
    'spatial': fid.Moments,
    'scores': inception_score.Sums,
  }
  made = {'count': int(arrays['count'])}
  for name, kind in kinds.items():
    if f'{name}.{kind._fields[0]}' in arrays:
      values = {f: arrays[f'{name}.{f}'] for f in kind._fields}
      if 'count' in values:
        values['count'] = int(values['count'])
      made[name] = kind(**values)
  for name in ('features', 'numbers'):
    if name in arrays:
      made[name] = (arrays[name],)
  return Gathered(**made)
