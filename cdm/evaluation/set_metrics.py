"""Two sets of images, gathered -> FID and the other numbers of features."""

from cdm.evaluation import feature_statistics
from cdm.evaluation.metrics import fid, inception_score, kid, precision_recall

METRICS = tuple(feature_statistics.NEEDS)
# Of pooled features: below it a covariance is singular, and the FID of the
# papers, over 50,000 images, is far off.
FEWEST = 2048
NEIGHBOUR = 3  # of precision and recall, as published
SPLITS = 10  # of the Inception Score, in all of the papers


def check(metrics, *, samples, reference, few=False, kid_size=1000):
  """Refuses what would give no number, before images are read.

  Args:
    metrics: names, of `METRICS`.
    samples: how many images there are.
    reference: how many, or None where that is not known.
    few: FID below `FEWEST` images is wanted all the same.
    kid_size: images of a subset of KID.

  Raises:
    ValueError: an unknown metric, or too few images for one.
  """
  for metric in metrics:
    if metric not in METRICS:
      raise ValueError(
        f'There is no metric {metric!r}; known are {", ".join(METRICS)}.'
      )
  fewest = min(n for n in (samples, reference) if n is not None)
  gaussian = [m for m in ('fid', 'sfid') if m in metrics]
  if gaussian and fewest < FEWEST and not few:
    raise ValueError(
      f'{" and ".join(gaussian).upper()} of {fewest:,} images is biased '
      f'upwards, and their covariance of {FEWEST:,} features is singular. Give '
      f'{FEWEST:,} images or more (the papers: 50,000), take kid, or add --few '
      'to have the number all the same.'
    )
  if 'is' in metrics and samples < SPLITS:
    raise ValueError(
      f'The Inception Score is taken over {SPLITS} splits, and there are '
      f'{samples} images; give {SPLITS} or more.'
    )
  if gaussian and fewest < 2:
    raise ValueError(
      f'{" and ".join(gaussian).upper()} needs two images or more of both, and '
      f'there is {fewest}.'
    )
  if 'pr' in metrics and fewest <= NEIGHBOUR:
    raise ValueError(
      f'The balls of precision and recall reach to neighbour {NEIGHBOUR}, and '
      f'there are {fewest} images; give {NEIGHBOUR + 1} or more.'
    )
  if 'kid' in metrics and kid_size < 2:
    raise ValueError(f'--kid_size={kid_size}: a subset of KID has 2 or more.')
  if 'kid' in metrics and fewest < kid_size:
    raise ValueError(
      f'KID draws subsets of {kid_size:,} images, and there are {fewest:,}; '
      'give more, or a smaller --kid_size.'
    )


def compare(samples, reference, *, metrics, kid_size=1000):
  """Numbers of two sets.

  Args:
    samples: `Gathered` of a whole set.
    reference: `Gathered` of a whole set; for FID and sFID also
      `reference_statistics.Statistics`, for 'is' None.
    metrics: names, of `METRICS`.
    kid_size: images of a subset.

  Returns:
    {name: float}, and 'conventions'.

  Raises:
    ValueError: there are too few images for a metric.
  """
  row, told = {}, {}
  for metric in metrics:
    if metric == 'is':
      mean, std = inception_score.score(samples.scores)
      row |= {'is': mean, 'is_std': std}
      told['is'] = inception_score.CONVENTION.format(
        splits=len(samples.scores.images), seed=inception_score.SEED
      )
    elif metric in ('fid', 'sfid'):
      part = 'pool' if metric == 'fid' else 'spatial'
      mine = getattr(samples, part)
      row[metric] = fid.fid(
        mine.mean, mine.covariance, *_gaussian(reference, part, metric)
      )
      told[metric] = fid.CONVENTION
    else:
      mine, theirs = (
        feature_statistics.in_order(samples),
        feature_statistics.in_order(reference),
      )
      if metric == 'kid':
        mean, std = kid.kid(mine, theirs, size=kid_size)
        row |= {'kid': mean, 'kid_std': std}
        told['kid'] = kid.CONVENTION.format(
          subsets=100, size=kid_size, seed=2020
        )
      else:
        found = precision_recall.precision_recall(theirs, mine, k=NEIGHBOUR)
        row |= dict(zip(('precision', 'recall'), found, strict=True))
        told['pr'] = precision_recall.CONVENTION.format(k=NEIGHBOUR)
  return row | {'conventions': told}


def _gaussian(reference, part, metric):
  """-> (mean, covariance) of the reference."""
  if isinstance(reference, feature_statistics.Gathered):
    found = getattr(reference, part)
    return found.mean, found.covariance
  if part == 'pool':
    return reference.mean, reference.covariance
  return reference.mean_spatial, reference.covariance_spatial
