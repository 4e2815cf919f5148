"""Fits Bradley and Terry's model: one strength per method, from pairs.

  P(i is chosen over j) = w_i / (w_i + w_j)

by the iteration of Hunter (2004, "MM algorithms for generalized Bradley-Terry
models"), equation 3:

  w_i <- (all choices of i) / sum over j of n_ij / (w_i + w_j)
"""

import numpy as np

MOST_STEPS = 10_000


def strengths(wins: np.ndarray, *, tolerance: float = 1e-10) -> np.ndarray:
  """Returns log w, with mean 0, of the largest likelihood.

  Args:
    wins: [..., M, M], how often i was chosen over j; any number of fits at
      once. Every fit must be `connected`, or strengths grow without end.
    tolerance: the iteration ends when no strength changes by this share.

  Returns:
    [..., M].
  """
  wins = np.asarray(wins, np.float64)
  numbers = wins + np.swapaxes(wins, -1, -2)  # [..., M, M]
  chosen = wins.sum(-1)  # [..., M]
  w = np.ones_like(chosen)
  for _ in range(MOST_STEPS):
    pairs = numbers / (w[..., :, None] + w[..., None, :])
    updated = chosen / pairs.sum(-1)
    updated /= np.exp(np.log(updated).mean(-1, keepdims=True))
    change = np.abs(updated / w - 1).max(initial=0.0)
    w = updated
    if change < tolerance:
      break
  return np.log(w)


def connected(wins: np.ndarray) -> bool:
  """Returns whether finite strengths exist.

  They do if from every method a chain of choices leads to every other one
  (Ford 1957): no group of methods was chosen each time.
  """
  reach = (np.asarray(wins) > 0) | np.eye(len(wins), dtype=bool)
  for _ in range(len(wins)):
    reach = reach.astype(int) @ reach.astype(int) > 0
  return bool(reach.all())


def smoothed(wins: np.ndarray) -> np.ndarray:
  """Adds half a choice each way to every pair that was compared.

  Finite strengths exist then, if the compared pairs form one group.
  """
  wins = np.asarray(wins, np.float64)
  compared = (wins + np.swapaxes(wins, -1, -2)) > 0
  return wins + 0.5 * compared
