"""Computes FID, sFID, IS, KID, precision and recall from reduced features."""

import dataclasses
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
KID_SIZE = 1000  # images per subset of KID, by default


@dataclasses.dataclass(frozen=True)
class MetricChoice:
  """The metrics to compute and their options.

  Attributes:
    names: names of the metrics, from `METRICS`.
    allow_few_images: allow FID and sFID with fewer than `FEWEST` images.
    kid_size: images per subset of KID; None is `KID_SIZE`.
  """

  names: Sequence[str]
  allow_few_images: bool = False
  kid_size: int | None = None

  @property
  def subset_size(self) -> int:
    """The number of images per subset of KID."""
    return KID_SIZE if self.kid_size is None else self.kid_size


@dataclasses.dataclass(frozen=True)
class SetScores:
  """The scores of a set of images against a reference.

  Attributes:
    scores: {name: value}; a metric may have several names, such as `kid` and
      `kid_std`.
    conventions: {metric: sentence that defines it}.
  """

  scores: dict[str, float]
  conventions: dict[str, str]


def check(
  metrics: Sequence[str],
  *,
  samples: int,
  reference: int | None,
  allow_few_images: bool = False,
  kid_size: int = KID_SIZE,
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
  kid_size: int = KID_SIZE,
) -> SetScores:
  """Computes the metrics of two sets.

  Args:
    samples: reduced features of all samples.
    reference: reduced features of the whole reference, or its statistics, which
      are enough for FID and sFID; None if 'is' is the only metric.
    metrics: names, from `METRICS`.
    kid_size: images per subset of KID.

  Raises:
    ValueError: there are too few images for a metric.
  """
  scores, conventions = {}, {}
  for metric in metrics:
    if metric == 'is':
      assert samples.scores is not None
      mean, std = inception_score.score(samples.scores)
      scores |= {'is': mean, 'is_std': std}
      conventions['is'] = inception_score.CONVENTION.format(
        splits=len(samples.scores.images), seed=inception_score.SEED
      )
    elif metric in ('fid', 'sfid'):
      part = 'pool' if metric == 'fid' else 'spatial'
      moments = getattr(samples, part)
      assert reference is not None
      scores[metric] = fid.fid(
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
        scores |= {'kid': mean, 'kid_std': std}
        conventions['kid'] = kid.CONVENTION.format(
          subsets=100, size=kid_size, seed=2020
        )
      else:
        pair = precision_recall.precision_recall(real, generated, k=NEIGHBOUR)
        scores |= dict(zip(('precision', 'recall'), pair, strict=True))
        conventions['pr'] = precision_recall.CONVENTION.format(k=NEIGHBOUR)
  return SetScores(scores, conventions)


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
