"""Inception Score: exp E_x KL(p(y|x) || p(y)), [Salimans et al. 2016].

Mean and standard deviation over splits; the papers take 10 of 5,000. [Salimans
et al. 2016] and [ADM] split in the order of the images, which are drawn at
random there. A data set often lies class by class, and a split of few classes
scores far too low: of sets we shuffle first, as torch-fidelity does.
"""

import functools
from typing import NamedTuple

import numpy as np

CONVENTION = (
  'softmax of the 1,008 logits, bias included; {splits} splits of images '
  'shuffled by RandomState({seed}); mean and population standard deviation '
  'over splits'
)
SEED = 2020  # torch-fidelity's


def inception_score(logits, *, splits=10, shuffle_seed=None):
  """Scores images by the class probabilities of a network.

  Args:
    logits: [N, K].
    splits: number of parts, of consecutive rows.
    shuffle_seed: shuffles the rows first, as torch-fidelity does with 2020;
      None keeps their order.

  Returns:
    (mean, standard deviation) over the splits, floats in [1, K].

  Raises:
    ValueError: fewer rows than splits, or not [N, K].
  """
  logits = np.asarray(logits)
  if logits.ndim != 2:
    raise ValueError(f'Logits have shape {logits.shape}; expected [N, K].')
  n = len(logits)
  if not 1 <= splits <= n:
    raise ValueError(
      f'The Inception Score of {n} images cannot be taken over {splits} '
      'splits; each needs one image at least.'
    )
  order = np.arange(n)
  if shuffle_seed is not None:
    order = np.random.RandomState(shuffle_seed).permutation(n)
  return score(sums(logits[order], np.arange(n), count=n, splits=splits))


class Sums(NamedTuple):
  """What the score needs of images; parts of a set add up.

  Attributes:
    images: float64 [S], how many there are in each split.
    negentropy: float64 [S], sum over images of sum p log p.
    classes: float64 [S, K], sum over images of p.
  """

  images: np.ndarray
  negentropy: np.ndarray
  classes: np.ndarray


def sums(logits, numbers, *, count, splits=10):
  """Sums over some images of a set.

  Args:
    logits: [n, K].
    numbers: int [n], of each image in the set; decides on its split.
    count: images of the whole set.
    splits: how many there are.

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


@functools.lru_cache(maxsize=4)
def ranks(count, seed=SEED):
  """-> int [count], the place of each image of a set once it is shuffled."""
  return np.argsort(np.random.RandomState(seed).permutation(count))


def score(found):
  """Sums -> (mean, standard deviation) of the score over the splits.

  Raises:
    ValueError: a split without images.
  """
  if not found.images.all():
    raise ValueError(
      f'Of {len(found.images)} splits of the Inception Score some have no '
      'image; give more images.'
    )
  images = found.images[:, None]
  marginal = found.classes / images
  # A class that no image has contributes nothing: p is 0 there.
  log = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
  gain = found.negentropy / found.images - (marginal * log).sum(axis=1)
  scores = np.exp(gain)
  return float(np.mean(scores)), float(np.std(scores))
