"""Inception Score: exp E_x KL(p(y|x) || p(y)), [Salimans et al. 2016].

Mean and standard deviation over splits. The papers take 10 splits of 5,000;
[ADM]'s evaluator averages over consecutive chunks of a size, which is the same
where they divide.
"""

import numpy as np

CONVENTION = (
  'softmax of the 1,008 logits, bias included; {splits} splits of consecutive '
  'images; mean and population standard deviation over splits'
)


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
  edges = [i * n // splits for i in range(splits + 1)]
  scores = [
    _score(logits[order[start:end]])
    for start, end in zip(edges[:-1], edges[1:], strict=True)
  ]
  return float(np.mean(scores)), float(np.std(scores))


def _score(logits):
  x = logits.astype(np.float64)
  x = x - x.max(axis=1, keepdims=True)
  log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
  p = np.exp(log_p)
  # A class that no image has contributes nothing: p is 0 there.
  marginal = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
  return np.exp((p * (log_p - marginal)).sum(axis=1).mean())
