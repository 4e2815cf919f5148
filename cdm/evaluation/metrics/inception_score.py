"""Computes the Inception Score, exp E_x KL(p(y|x) || p(y)).

[Salimans et al. 2016]. The result is a mean and a standard deviation over
splits; the papers take 10 splits of 5,000 images. [Salimans et al. 2016] and
[ADM] split in the order of the images, which are drawn at random there. The
images of a data set often lie class by class, and a split of few classes scores
far too low, so the images of a set are shuffled first, as torch-fidelity does.
"""

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cdm.evaluation.metrics.measure import SetMeasure

CONVENTION = (
  'softmax of the 1,008 logits, bias included; {splits} splits of images '
  'shuffled by RandomState({seed}); mean and population standard deviation '
  'over splits'
)
SEED = 2020  # torch-fidelity's
SPLITS = 10  # in all of the papers


def inception_score(
  logits: np.ndarray, *, splits: int = SPLITS, shuffle_seed: int | None = None
) -> tuple[float, float]:
  """Scores images by the class probabilities of a network.

  Args:
    logits: [N, K].
    splits: number of splits, each of consecutive rows.
    shuffle_seed: seed of a shuffle of the rows before they are split
      (torch-fidelity's is 2020); None keeps their order.

  Returns:
    (mean, standard deviation) over the splits, floats in [1, K].

  Raises:
    ValueError: there are fewer rows than splits, or the shape is not [N, K].
  """
  logits = np.asarray(logits)
  if logits.ndim != 2:
    raise ValueError(f'Logits have shape {logits.shape}; expected [N, K].')
  n = len(logits)
  if not 1 <= splits <= n:
    raise ValueError(
      f'The Inception Score of {n} images cannot be taken over {splits} '
      'splits; each split needs at least one image.'
    )
  order = np.arange(n)
  if shuffle_seed is not None:
    order = np.random.RandomState(shuffle_seed).permutation(n)
  return score(sums(logits[order], np.arange(n), count=n, splits=splits))


class Sums(NamedTuple):
  """Sums over images that the score is computed from.

  The sums of a set are those of its parts, added field by field.

  Attributes:
    images: float64 [S], number of images in each split.
    negentropy: float64 [S], sum over images of sum p log p.
    classes: float64 [S, K], sum over images of p.
  """

  images: np.ndarray
  negentropy: np.ndarray
  classes: np.ndarray


def sums(
  logits: npt.ArrayLike,
  numbers: np.ndarray,
  *,
  count: int,
  splits: int = SPLITS,
) -> Sums:
  """Computes the sums over some images of a set.

  Args:
    logits: [n, K].
    numbers: int [n], the index of each image in the set, which determines its
      split.
    count: number of images of the whole set.
    splits: number of splits.

  Returns:
    Sums; add those of all parts, field by field.
  """
  x = np.asarray(logits, np.float64)
  x = x - x.max(axis=1, keepdims=True)
  log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
  p = np.exp(log_p)
  edges = [i * count // splits for i in range(1, splits)]
  member = np.searchsorted(edges, numbers, side='right')  # [n]
  member = (member == np.arange(splits)[:, None]).astype(np.float64)  # [S, n]
  return Sums(member.sum(axis=1), member @ (p * log_p).sum(axis=1), member @ p)


def merge(a: Sums, b: Sums) -> Sums:
  """Returns the sums over two disjoint parts of a set."""
  return Sums(*(x + y for x, y in zip(a, b, strict=True)))


@functools.lru_cache(maxsize=4)
def ranks(count: int, seed: int = SEED) -> np.ndarray:
  """Returns int [count], the index of each image of a set after the shuffle."""
  return np.argsort(np.random.RandomState(seed).permutation(count))


def score(found: Sums) -> tuple[float, float]:
  """Returns (mean, standard deviation) of the score over the splits.

  Args:
    found: the sums over all images of the set.

  Raises:
    ValueError: a split has no images.
  """
  if not found.images.all():
    raise ValueError(
      f'Some of the {len(found.images)} splits of the Inception Score have no '
      'image; give more images.'
    )
  images = found.images[:, None]
  marginal = found.classes / images
  # A class with p(y) = 0 contributes 0; the bound avoids log 0.
  log = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
  gain = found.negentropy / found.images - (marginal * log).sum(axis=1)
  scores = np.exp(gain)
  return float(np.mean(scores)), float(np.std(scores))


INCEPTION_SCORE = SetMeasure(
  lambda samples, reference, size: dict(
    zip(('is', 'is_std'), score(samples), strict=True)
  ),
  CONVENTION.format(splits=SPLITS, seed=SEED),
)
