"""Computes FID, sFID, IS, KID, precision and recall from reduced features."""

from collections.abc import Sequence

import numpy as np

from cdm.evaluation import feature_statistics
from cdm.evaluation.metrics import fid, inception_score, kid, precision_recall
from cdm.evaluation.reference_statistics import Statistics

METRICS = tuple(feature_statistics.NEEDS)
# The number of pooled features. With fewer images their covariance is singular,
# and the FID is far from that of the papers, which use 50,000 images.
FEWEST = 2048
NEIGHBOUR = 3  # k of the k-NN balls of precision and recall, as published
SPLITS = 10  # splits of the Inception Score, in all of the papers


def check(
  metrics: Sequence[str],
  *,
  samples: int,
  reference: int | None,
  allow_few_images: bool = False,
  kid_size: int = 1000,
) -> None:
  """Refuses metrics that cannot be computed, before any image is read.

  Args:
    metrics: names, from `METRICS`.
    samples: number of samples.
    reference: number of images in the reference, or None if it is not known.
    allow_few_images: allow FID and sFID with fewer than `FEWEST` images.
    kid_size: images per subset of KID.

  Raises:
    ValueError: a metric is unknown, or there are too few images for it.
  """
  for metric in metrics:
    if metric not in METRICS:
      raise ValueError(
        f'There is no metric {metric!r}; known are {", ".join(METRICS)}.'
      )
  fewest = min(n for n in (samples, reference) if n is not None)
  gaussian = [m for m in ('fid', 'sfid') if m in metrics]
  if gaussian and fewest < FEWEST and not allow_few_images:
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


def compare(
  samples: feature_statistics.Gathered,
  reference: feature_statistics.Gathered | Statistics | None,
  *,
  metrics: Sequence[str],
  kid_size: int = 1000,
) -> dict:
  """Computes the metrics of two sets.

  Args:
    samples: reduced features of all samples.
    reference: reduced features of the whole reference. For FID and sFID
      statistics are enough; 'is' alone needs no reference.
    metrics: names, from `METRICS`.
    kid_size: images per subset of KID.

  Returns:
    {name: float}, and under 'conventions' {metric: sentence}.

  Raises:
    ValueError: there are too few images for a metric.
  """
  row, conventions = {}, {}
  for metric in metrics:
    if metric == 'is':
      assert samples.scores is not None
      mean, std = inception_score.score(samples.scores)
      row |= {'is': mean, 'is_std': std}
      conventions['is'] = inception_score.CONVENTION.format(
        splits=len(samples.scores.images), seed=inception_score.SEED
      )
    elif metric in ('fid', 'sfid'):
      part = 'pool' if metric == 'fid' else 'spatial'
      moments = getattr(samples, part)
      assert reference is not None
      row[metric] = fid.fid(
        moments.mean, moments.covariance, *_gaussian(reference, part)
      )
      conventions[metric] = fid.CONVENTION
    else:
      assert isinstance(reference, feature_statistics.Gathered)
      generated, real = (
        feature_statistics.in_order(samples),
        feature_statistics.in_order(reference),
      )
      if metric == 'kid':
        mean, std = kid.kid(generated, real, size=kid_size)
        row |= {'kid': mean, 'kid_std': std}
        conventions['kid'] = kid.CONVENTION.format(
          subsets=100, size=kid_size, seed=2020
        )
      else:
        pair = precision_recall.precision_recall(real, generated, k=NEIGHBOUR)
        row |= dict(zip(('precision', 'recall'), pair, strict=True))
        conventions['pr'] = precision_recall.CONVENTION.format(k=NEIGHBOUR)
  return row | {'conventions': conventions}


def _gaussian(
  reference: feature_statistics.Gathered | Statistics, part: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (mean, covariance) of the reference; part: 'pool' or 'spatial'."""
  if isinstance(reference, feature_statistics.Gathered):
    moments = getattr(reference, part)
    return moments.mean, moments.covariance
  if part == 'pool':
    return reference.mean, reference.covariance
  mean, covariance = reference.mean_spatial, reference.covariance_spatial
  # `reference_statistics.check_sizes` refused statistics without these.
  assert mean is not None and covariance is not None
  return mean, covariance
