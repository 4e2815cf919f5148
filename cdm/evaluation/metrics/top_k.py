"""Computes the top-k accuracy of a classifier.

  rank_i = |{c != y_i : logit_ic >= logit_i,y_i}|,   top-k = mean of (rank < k)

A class that ties with the true one counts as above it, so a network that gives
every class the same logit is never right.
"""

import numpy as np

CONVENTION = (
  'share of images whose class is among the k highest logits; a class that '
  'ties with the true one counts as higher'
)


def ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Counts the classes that a classifier ranks above the true one.

  Args:
    logits: [N, K], finite. They are compared in their own precision.
    labels: int [N], the true classes, 0 to K - 1.

  Returns:
    int64 [N], 0 to K - 1; 0 means that the classifier is right.

  Raises:
    ValueError: shapes that do not fit, a label that is out of range or not an
      integer, or a logit that is not finite.
  """
  logits, labels = np.asarray(logits), np.asarray(labels)
  if logits.ndim != 2 or labels.shape != logits.shape[:1]:
    raise ValueError(
      f'Logits are {logits.shape} and labels {labels.shape}; the '
      'expected shapes are [N, K] and [N].'
    )
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f'Labels are {labels.dtype}; they must be integers.')
  classes = logits.shape[1]
  if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
    raise ValueError(
      f'Labels lie in {labels.min()} to {labels.max()}, but the classifier '
      f'has {classes} classes, 0 to {classes - 1}.'
    )
  if not np.isfinite(logits).all():
    bad = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
    raise ValueError(
      f'The logits of image {bad} are not finite, so its class cannot be '
      'ranked; the weights of the classifier are damaged.'
    )
  true = np.take_along_axis(logits, labels[:, None].astype(np.int64), axis=1)
  # The true class itself is not counted.
  return (logits >= true).sum(axis=1, dtype=np.int64) - 1


def top_k(found: np.ndarray, k: int) -> float:
  """Returns the share of images whose class is among the k highest logits.

  Args:
    found: int [N], see `ranks`; N is at least 1.
    k: number of classes, at least 1.

  Returns:
    float in [0, 1].
  """
  return float(np.mean(np.asarray(found) < k, dtype=np.float64))
