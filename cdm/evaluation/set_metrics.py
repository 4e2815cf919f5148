"""Computes the metrics of sets from reduced features of the images."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cdm.evaluation import feature_statistics, metrics_table
from cdm.evaluation.metrics import inception_score, precision_recall
from cdm.evaluation.reference_statistics import Statistics

# The number of pooled features. With fewer images their covariance is singular,
# and the FID is far from that of the papers, which use 50,000 images.
FEWEST = 2048
KID_SIZE = 1000  # images per subset of KID, by default


@dataclasses.dataclass(frozen=True)
class MetricChoice:
  """The metrics to compute and their options.

  Attributes:
    names: names of the metrics, from `metrics_table.SETS`.
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
  features: int = FEWEST,
) -> None:
  """Refuses metrics that cannot be computed, before any image is read.

  Args:
    metrics: names, from `metrics_table.SETS`.
    samples: number of samples.
    reference: number of images in the reference, or None if it is not known.
    allow_few_images: allow FID and sFID with fewer than `FEWEST` images.
    kid_size: images per subset of KID.
    features: number of pooled features.

  Raises:
    ValueError: a metric is unknown, or there are too few images for it.
  """
  for metric in metrics:
    if metric not in metrics_table.SETS:
      raise ValueError(
        f'There is no metric {metric!r}; known are '
        f'{", ".join(metrics_table.SETS)}.'
      )
  fewest = min(n for n in (samples, reference) if n is not None)
  gaussian = [m for m in metrics if metrics_table.SETS[m].from_moments]
  if gaussian and fewest < features and not allow_few_images:
    raise ValueError(
      f'{" and ".join(gaussian).upper()} of {fewest:,} images is biased '
      f'upwards, and their covariance of {features:,} features is singular. '
      f'Give {features:,} images or more (the papers: 50,000), take kid, or '
      'add --few to have the number all the same.'
    )
  splits = inception_score.SPLITS
  if 'is' in metrics and samples < splits:
    raise ValueError(
      f'The Inception Score is taken over {splits} splits, and there are '
      f'{samples} images; give {splits} or more.'
    )
  if gaussian and fewest < 2:
    raise ValueError(
      f'{" and ".join(gaussian).upper()} needs two images or more of both, and '
      f'there is {fewest}.'
    )
  neighbour = precision_recall.NEIGHBOUR
  if 'pr' in metrics and fewest <= neighbour:
    raise ValueError(
      f'The balls of precision and recall reach to neighbour {neighbour}, and '
      f'there are {fewest} images; give {neighbour + 1} or more.'
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
    metrics: names, from `metrics_table.SETS`.
    kid_size: images per subset of KID.

  Raises:
    ValueError: there are too few images for a metric.
  """
  scores, conventions = {}, {}
  for name in metrics:
    metric = metrics_table.SETS[name]
    ours = _taken(samples, metric.takes)
    theirs = None
    if not metric.alone:
      assert reference is not None
      theirs = _taken(reference, metric.takes)
    scores |= metric.measure.function(ours, theirs, kid_size)
    conventions[name] = metric.measure.convention.format(size=kid_size)
  return SetScores(scores, conventions)


def _taken(
  images: feature_statistics.Gathered | Statistics, part: str
) -> object:
  """Returns what a metric takes of a set, see `measure.SetMeasure`.

  Args:
    images: the reduced features of the set, or its statistics.
    part: `SetMetric.takes` of the metric.
  """
  if part in ('pool', 'spatial'):
    return _gaussian(images, part)
  assert isinstance(images, feature_statistics.Gathered)
  if part == 'features':
    return feature_statistics.in_order(images)
  assert images.scores is not None
  return images.scores


def _gaussian(
  reference: feature_statistics.Gathered | Statistics, part: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (mean, covariance) of a set; part: 'pool' or 'spatial'."""
  if isinstance(reference, feature_statistics.Gathered):
    moments = getattr(reference, part)
    return moments.mean, moments.covariance
  if part == 'pool':
    return reference.mean, reference.covariance
  mean, covariance = reference.mean_spatial, reference.covariance_spatial
  # `reference_statistics.check_sizes` refused statistics without these.
  assert mean is not None and covariance is not None
  return mean, covariance
