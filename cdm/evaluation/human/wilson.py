"""Computes Wilson's interval of a proportion, for one person's trials.

With n trials and the share p, the ends are the q for which p lies z standard
errors sqrt(q (1 - q) / n) from q (Wilson 1927): unlike p +- z se it stays
inside [0, 1] and holds its level for few trials.
"""

import math
import statistics


def interval(
  successes: int, trials: int, *, level: float = 0.95
) -> tuple[float, float]:
  """Returns (low, high) of the share behind so many successes.

  Args:
    successes: 0 to trials.
    trials: number of independent trials, 1 or more.
    level: how often such an interval holds the share.

  Raises:
    ValueError: the numbers are no share.
  """
  if trials < 1 or not 0 <= successes <= trials:
    raise ValueError(
      f'{successes} of {trials} trials is no share; give 1 trial or more, and '
      'successes from 0 to all of them.'
    )
  z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
  share, square = successes / trials, z * z / trials
  center = (share + square / 2) / (1 + square)
  spread = math.sqrt(share * (1 - share) / trials + square / (4 * trials))
  half = z * spread / (1 + square)
  # At the ends the formula gives 0 and 1 up to rounding.
  low = 0.0 if successes == 0 else center - half
  high = 1.0 if successes == trials else center + half
  return low, high
